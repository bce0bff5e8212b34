//! Connections to the database, on which nothing takes longer than a limit, and the transactions on them.
//!
//! A server that is gone without a word, as behind a network that drops all packets, would otherwise be waited for
//! without end, and each connection to it with it.
//!
//! `BEGIN`, `COMMIT` and `ROLLBACK` are sent here and not by sqlx: after a `COMMIT` that failed, as on a disk that is
//! full, SQLite has rolled back by itself, but sqlx goes on counting the transaction as open, and refuses every
//! later one on that connection. Here a connection whose transaction did not end as it should is closed.

use std::io;
use std::time::Duration;

use sqlx::any::AnyPoolOptions;
use sqlx::{AnyConnection, AnyPool, AssertSqlSafe, Connection as _, Executor as _};
use tokio::time::timeout;

/// How long a transaction may take, or a statement outside of one, once there is a connection for it. SQLite waits for
/// 10 s for a file that others have locked, and PostgreSQL as long for a row: they are to say so before.
pub(crate) const LIMIT: Duration = Duration::from_secs(15);

/// Connections that are used one at a time, none for longer than the limit; clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Connections {
    pool: AnyPool,
    limit: Duration,
}

impl Connections {
    /// Up to `most` connections, each of which is told something first.
    pub(crate) fn options(most: u32, told: String, limit: Duration) -> AnyPoolOptions {
        AnyPoolOptions::new()
            .max_connections(most)
            .after_connect(move |connection, _| {
                let told = sqlx::raw_sql(AssertSqlSafe(told.clone()));
                Box::pin(async move { told.execute(connection).await.map(drop) })
            })
            // Instead of sqlx's own test, which waits without end for the answer of one that was idle.
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

    /// Runs `statements` in a transaction, which is committed where they succeed, and rolled back where they do not.
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
                // Closing the connection rolls back too.
                Err(error) => match connection.execute("ROLLBACK").await {
                    Ok(_) => Ok(Err(error)),
                    Err(_) => Err(error),
                },
            }
        });
        done.await.flatten()
    }

    /// Runs `statements` on a connection, which is closed where they fail.
    pub(crate) async fn run<T, E: From<sqlx::Error>>(
        &self,
        statements: impl AsyncFnOnce(&mut AnyConnection) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut connection = self.pool.acquire().await?;
        // Whatever ends this early, the end of a request too, leaves statements half done.
        connection.close_on_drop();
        let done = timeout(self.limit, statements(&mut connection)).await;
        let done = done.unwrap_or_else(|_| Err(no_answer(self.limit).into()))?;
        // The pool tests a connection that it takes back, and waits without end for the answer.
        tokio::spawn(timeout(self.limit, connection.return_to_pool()));
        Ok(done)
    }

    pub(crate) async fn close(&self) {
        self.pool.close().await;
    }
}

/// What an operation fails with that was not waited for any longer.
pub(crate) fn no_answer(within: Duration) -> sqlx::Error {
    let words = format!("no answer within {within:?}");
    sqlx::Error::Io(io::Error::new(io::ErrorKind::TimedOut, words))
}
