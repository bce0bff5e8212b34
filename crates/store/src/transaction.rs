//! A transaction that writes, and the connection it is on.
//!
//! `BEGIN`, `COMMIT` and `ROLLBACK` are sent here and not by sqlx: after a `COMMIT` that failed, as on a disk that is
//! full, SQLite has rolled back by itself, but sqlx goes on counting the transaction as open, and refuses every
//! later one on that connection. Here a connection whose transaction did not end as it should is closed.

use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::{Any, AnyConnection, AnyPool, Executor as _};
use tokio::time::timeout;

use crate::error::StoreFailure;
use crate::health::Health;

/// A server that does not answer a `ROLLBACK` for this long is not waited for; closing the connection rolls back too.
const ROLLBACK: Duration = Duration::from_secs(5);

/// A transaction that is open; where it is dropped without [`end`](Self::end), its connection is closed.
pub(crate) struct WriteTransaction {
    connection: PoolConnection<Any>,
    health: Health,
    is_over: bool,
}

impl WriteTransaction {
    pub(crate) async fn begin(
        pool: &AnyPool,
        begin: &'static str,
        health: &Health,
    ) -> Result<Self, sqlx::Error> {
        let connection = pool.acquire().await?;
        let mut transaction = Self { connection, health: health.clone(), is_over: false };
        transaction.connection().execute(begin).await?;
        Ok(transaction)
    }

    /// What the statements of the transaction are sent on.
    pub(crate) fn connection(&mut self) -> &mut AnyConnection {
        &mut self.connection
    }

    /// Commits what was `done`, or rolls it back where it failed, and gives what came of it.
    pub(crate) async fn end<T, E: StoreFailure>(mut self, done: Result<T, E>) -> Result<T, E> {
        let ended = match done {
            Ok(value) => {
                let committed = self.connection().execute("COMMIT").await;
                self.is_over = committed.is_ok();
                committed.map(|_| value).map_err(E::from)
            }
            Err(error) => {
                let rolled_back = timeout(ROLLBACK, self.connection().execute("ROLLBACK")).await;
                self.is_over = matches!(rolled_back, Ok(Ok(_)));
                Err(error)
            }
        };
        self.health.note_write(&ended);
        ended
    }
}

impl Drop for WriteTransaction {
    fn drop(&mut self) {
        if !self.is_over {
            self.connection.close_on_drop();
        }
    }
}
