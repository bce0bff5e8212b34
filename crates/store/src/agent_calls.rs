//! Calls to agents that fetch them, from the worker that makes a call to the agent's connection, at any daemon.

use sqlx::Row as _;
use sqlx::any::AnyRow;
use uuid::Uuid;

use crate::error::StoreError;
use crate::open::Store;
use crate::sql::{Statement, uuid};

/// A call to an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredAgentCall {
    /// Its ID, random.
    pub id: Uuid,
    /// The node.
    pub node: Uuid,
    /// The attempt whose agent is called.
    pub attempt: Uuid,
    /// The call, in JSON.
    pub call: String,
}

/// An agent's answer to a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredAgentAnswer {
    /// The status, as of HTTP.
    pub status: u16,
    /// The body, in JSON.
    pub body: String,
}

/// The progress of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AgentCallProgress {
    /// The node.
    pub node: Uuid,
    /// The call.
    pub id: Uuid,
    /// Whether it is answered.
    pub is_answered: bool,
}

impl Store {
    /// Adds a call. An earlier one of the node is replaced: its worker is gone.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn add_agent_call(&self, new: &StoredAgentCall) -> Result<(), StoreError> {
        let insert = "INSERT INTO agent_calls (node_uuid, attempt, id, call) VALUES ($1, $2, $3, $4) \
                      ON CONFLICT (node_uuid) DO UPDATE SET attempt = $2, id = $3, call = $4, \
                      status = NULL, answer = NULL";
        let insert = sqlx::query(insert)
            .bind(new.node.to_string())
            .bind(new.attempt.to_string())
            .bind(new.id.to_string())
            .bind(new.call.clone());
        self.execute(insert).await
    }

    /// The call that waits for the agent of this attempt.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn agent_call(
        &self,
        node: Uuid,
        attempt: Uuid,
    ) -> Result<Option<StoredAgentCall>, StoreError> {
        let select = "SELECT node_uuid, attempt, id, call FROM agent_calls \
                      WHERE node_uuid = $1 AND attempt = $2 AND status IS NULL";
        let select = sqlx::query(select).bind(node.to_string()).bind(attempt.to_string());
        self.row(select).await?.map(|row| call_of(&row)).transpose()
    }

    /// Saves the answer to a call of this attempt. An answer to a call that is over changes nothing.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn answer_agent_call(
        &self,
        node: Uuid,
        attempt: Uuid,
        id: Uuid,
        answer: &StoredAgentAnswer,
    ) -> Result<(), StoreError> {
        let update = "UPDATE agent_calls SET status = $4, answer = $5 \
                      WHERE node_uuid = $1 AND attempt = $2 AND id = $3 AND status IS NULL";
        let update = sqlx::query(update)
            .bind(node.to_string())
            .bind(attempt.to_string())
            .bind(id.to_string())
            .bind(i64::from(answer.status))
            .bind(answer.body.clone());
        self.execute(update).await
    }

    /// The answer to a call, if there is one.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn agent_answer(
        &self,
        node: Uuid,
        id: Uuid,
    ) -> Result<Option<StoredAgentAnswer>, StoreError> {
        let select = "SELECT status, answer FROM agent_calls \
                      WHERE node_uuid = $1 AND id = $2 AND status IS NOT NULL";
        let select = sqlx::query(select).bind(node.to_string()).bind(id.to_string());
        self.row(select).await?.map(|row| answer_of(&row)).transpose()
    }

    /// Removes a call that is over.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn remove_agent_call(&self, node: Uuid, id: Uuid) -> Result<(), StoreError> {
        let delete = "DELETE FROM agent_calls WHERE node_uuid = $1 AND id = $2";
        let delete = sqlx::query(delete).bind(node.to_string()).bind(id.to_string());
        self.execute(delete).await
    }

    /// The progress of all calls.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn agent_calls(&self) -> Result<Vec<AgentCallProgress>, StoreError> {
        let select = "SELECT node_uuid, id, status FROM agent_calls";
        let rows = self.rows(sqlx::query(select)).await?;
        let progress = |row: &AnyRow| {
            let status: Option<i64> = row.try_get("status")?;
            let (node, id) = (uuid(row, "node_uuid")?, uuid(row, "id")?);
            Ok(AgentCallProgress { node, id, is_answered: status.is_some() })
        };
        rows.iter().map(progress).collect()
    }

    async fn execute(&self, statement: Statement<'_>) -> Result<(), StoreError> {
        let done = self.transact(async |connection| {
            statement.execute(connection).await?;
            Ok::<_, StoreError>(())
        });
        done.await
    }
}

fn call_of(row: &AnyRow) -> Result<StoredAgentCall, StoreError> {
    Ok(StoredAgentCall {
        id: uuid(row, "id")?,
        node: uuid(row, "node_uuid")?,
        attempt: uuid(row, "attempt")?,
        call: row.try_get("call")?,
    })
}

fn answer_of(row: &AnyRow) -> Result<StoredAgentAnswer, StoreError> {
    let status: i64 = row.try_get("status")?;
    let out_of_range =
        |_| StoreError::OutOfRange { what: "HTTP status", value: status.to_string() };
    Ok(StoredAgentAnswer {
        status: u16::try_from(status).map_err(out_of_range)?,
        body: row.try_get("answer")?,
    })
}
