//! Database connections with a time limit on every operation, and their transactions.
//!
//! Without a limit, an operation would wait forever for a server that vanished, for example behind a network that
//! drops all packets, and so would all its connections.
//!
//! This file sends `BEGIN`, `COMMIT` and `ROLLBACK` instead of sqlx. After a failed `COMMIT`, as on a full disk,
//! SQLite rolls back by itself, but sqlx still counts the transaction as open and refuses every later one on that
//! connection. Here a connection is closed if its transaction did not end properly.

use std::io;
use std::time::Duration;

use sqlx::any::AnyPoolOptions;
use sqlx::{AnyConnection, AnyPool, AssertSqlSafe, Connection as _, Executor as _};
use tokio::time::timeout;

/// Time limit of a transaction, or of a single statement, once it has a connection. It exceeds the 10 s for which
/// SQLite waits for a locked file, and PostgreSQL for a locked row, so that these errors come first.
pub(crate) const LIMIT: Duration = Duration::from_secs(15);

/// Connections for one operation at a time, each within the limit; clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Connections {
    pool: AnyPool,
    limit: Duration,
}

impl Connections {
    /// Options for up to `most` connections. Each connection first executes the statements `told`.
    pub(crate) fn options(most: u32, told: String, limit: Duration) -> AnyPoolOptions {
        AnyPoolOptions::new()
            .max_connections(most)
            .after_connect(move |connection, _| {
                let told = sqlx::raw_sql(AssertSqlSafe(told.clone()));
                Box::pin(async move { told.execute(connection).await.map(drop) })
            })
            // sqlx's own test waits forever for the answer of an idle connection.
            .test_before_acquire(false)
            .before_acquire(move |connection, _| {
                Box::pin(async move {
                    let answer = timeout(limit / 5, connection.ping()).await;
                    answer.unwrap_or_else(|_| Err(no_answer(limit / 5))).map(|()| true)
                })
            })
    }

    pub(crate) fn new(pool: AnyPool, limit: Duration) -> Self {
        Self { pool, limit }
    }

    /// Runs `statements` in a transaction; commits if they succeed, and rolls back if they fail.
    pub(crate) async fn transaction<T, E: From<sqlx::Error>>(
        &self,
        begin: &'static str,
        statements: impl AsyncFnOnce(&mut AnyConnection) -> Result<T, E>,
    ) -> Result<T, E> {
        let done = self.run(async |connection| {
            connection.execute(begin).await?;
            match statements(connection).await {
                Ok(value) => {
                    connection.execute("COMMIT").await?;
                    Ok(Ok(value))
                }
                // Closing the connection rolls back, too.
                Err(error) => match connection.execute("ROLLBACK").await {
                    Ok(_) => Ok(Err(error)),
                    Err(_) => Err(error),
                },
            }
        });
        done.await.flatten()
    }

    /// Runs `statements` on a connection, which is closed if they fail.
    pub(crate) async fn run<T, E: From<sqlx::Error>>(
        &self,
        statements: impl AsyncFnOnce(&mut AnyConnection) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut connection = self.pool.acquire().await?;
        // Any early end, even of a request, leaves statements half done.
        connection.close_on_drop();
        let done = timeout(self.limit, statements(&mut connection)).await;
        let done = done.unwrap_or_else(|_| Err(no_answer(self.limit).into()))?;
        // The pool tests a returned connection, and waits forever for the answer.
        tokio::spawn(timeout(self.limit, connection.return_to_pool()));
        Ok(done)
    }

    pub(crate) async fn close(&self) {
        self.pool.close().await;
    }
}

/// The error of an operation that exceeded the limit.
pub(crate) fn no_answer(within: Duration) -> sqlx::Error {
    let words = format!("no answer within {within:?}");
    sqlx::Error::Io(io::Error::new(io::ErrorKind::TimedOut, words))
}
