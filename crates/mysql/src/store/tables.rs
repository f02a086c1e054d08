//! The tables in which the state of runs is kept.
//!
//! Each stands for itself: a version that needs more makes further tables beside those that are there,
//! so nothing is ever altered and an older account's rights suffice. What is written often (`beats`,
//! `live`) is apart from `runs`, whose rows are long and would be logged whole with every write.

use underpin_dialect::DbResult;

use crate::control::Control;
use crate::query::{define, literal, number, quote};

/// Tables without which nothing can be read.
const BASE: [&str; 3] = ["runs", "fences", "marks"];

/// Tables that earlier versions did not make.
const LATER: [&str; 5] = ["orders", "history", "live", "beats", "prints"];

/// How far our tables are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    /// No run was ever recorded.
    Nothing,
    /// An older version made what is there.
    Older,
    /// All of them.
    All,
}

impl Control {
    /// Which of our tables exist; `Nothing` also where the schema itself is missing.
    pub(crate) async fn find_state(&mut self) -> DbResult<Found> {
        let base = self.count_tables(&BASE).await?;
        if base < BASE.len() {
            return Ok(Found::Nothing);
        }
        let later = self.count_tables(&LATER).await?;
        Ok(if later < LATER.len() { Found::Older } else { Found::All })
    }

    async fn count_tables(&mut self, names: &[&str]) -> DbResult<usize> {
        let sql = format!(
            "SELECT COUNT(*) FROM information_schema.TABLES WHERE TABLE_SCHEMA = {} AND TABLE_NAME \
             IN ('{}')",
            literal(&self.state_schema)?,
            names.join("', '")
        );
        let count = number(&mut self.session.conn, &sql, "looking for", &self.state_schema).await?;
        Ok(usize::try_from(count).unwrap_or(0))
    }

    /// Makes those of our tables that are missing.
    pub(crate) async fn make_state(&mut self) -> DbResult<()> {
        if self.find_state().await? == Found::All {
            return Ok(());
        }
        let state = quote(&self.state_schema)?;
        let object = self.state_schema.clone();
        let conn = &mut self.session.conn;
        let mut statements =
            vec![format!("CREATE DATABASE IF NOT EXISTS {state} CHARACTER SET utf8mb4")];
        statements.extend(definitions(&state));
        for sql in statements {
            define(conn, &sql, "making the state tables in", &object).await.map_err(|error| {
                error.help(
                    "underpin keeps the state of runs in this database; give the account the right \
                     to create it, or name another one with --state-schema",
                )
            })?;
        }
        Ok(())
    }
}

fn definitions(state: &str) -> [String; 8] {
    let key = "run_id VARCHAR(32) CHARACTER SET ascii NOT NULL";
    let text = "CHARACTER SET utf8mb4 COLLATE utf8mb4_bin";
    [
        format!(
            "CREATE TABLE IF NOT EXISTS {state}.runs ({key} PRIMARY KEY, schema_name VARCHAR(64) NOT \
             NULL, table_name VARCHAR(64) NOT NULL, state VARCHAR(16) NOT NULL, statement LONGTEXT \
             NOT NULL, spec LONGTEXT NOT NULL, checkpoint LONGTEXT NOT NULL, identity LONGTEXT NOT \
             NULL, runner VARCHAR(255) NOT NULL, created_at DATETIME(6) NOT NULL, updated_at \
             DATETIME(6) NOT NULL, ended_at DATETIME(6) NULL, KEY by_table (schema_name, table_name)) \
             ENGINE=InnoDB {text} COMMENT='underpin: runs'"
        ),
        format!(
            "CREATE TABLE IF NOT EXISTS {state}.fences ({key} PRIMARY KEY, epoch BIGINT UNSIGNED NOT \
             NULL) ENGINE=InnoDB COMMENT='underpin: who may write for a run'"
        ),
        format!(
            "CREATE TABLE IF NOT EXISTS {state}.marks ({key}, round BIGINT UNSIGNED NOT NULL, chunk \
             INT UNSIGNED NOT NULL, row_count BIGINT UNSIGNED NOT NULL, PRIMARY KEY (run_id, round, \
             chunk)) ENGINE=InnoDB COMMENT='underpin: chunks done in the running round'"
        ),
        format!(
            "CREATE TABLE IF NOT EXISTS {state}.orders (id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT \
             PRIMARY KEY, {key}, command LONGTEXT NOT NULL, given_by VARCHAR(512) NOT NULL, given_at \
             DATETIME(6) NOT NULL, taken_at DATETIME(6) NULL, KEY by_run (run_id, taken_at)) \
             ENGINE=InnoDB {text} COMMENT='underpin: what people asked of a run'"
        ),
        format!(
            "CREATE TABLE IF NOT EXISTS {state}.history ({key} PRIMARY KEY, origin LONGTEXT NOT NULL, \
             record LONGTEXT NOT NULL) ENGINE=InnoDB {text} COMMENT='underpin: why a run was begun and \
             what came of it'"
        ),
        format!(
            "CREATE TABLE IF NOT EXISTS {state}.live ({key} PRIMARY KEY, live LONGTEXT NOT NULL, \
             seen_at DATETIME(6) NOT NULL) ENGINE=InnoDB {text} COMMENT='underpin: how an open run \
             fares'"
        ),
        format!(
            "CREATE TABLE IF NOT EXISTS {state}.beats ({key} PRIMARY KEY, beat BIGINT UNSIGNED NOT \
             NULL, written_at DATETIME(6) NOT NULL) ENGINE=InnoDB COMMENT='underpin: heartbeats, by \
             which replicas are measured'"
        ),
        format!(
            "CREATE TABLE IF NOT EXISTS {state}.prints ({key}, what VARCHAR(16) CHARACTER SET ascii NOT \
             NULL, print LONGTEXT NOT NULL, PRIMARY KEY (run_id, what)) ENGINE=InnoDB {text} \
             COMMENT='underpin: by what the tables of a run are known again'"
        ),
    ]
}
