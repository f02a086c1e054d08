//! Transactions that were prepared and wait for somebody to commit them.
//!
//! On MariaDB such a transaction lets go of its metadata locks when its session ends: one that changed the
//! table before the triggers stood would be committed behind them, and no log would know of it. But it keeps
//! InnoDB's lock on the table. So the triggers are installed only once that lock was had too, with the
//! metadata lock in hand, behind which nobody new can come.

use underpin_dialect::DbResult;

use crate::connect::Session;
use crate::control::Control;
use crate::query::{rows, run, text};

/// Transactions that are named, at most.
const NAMED_MAX: usize = 3;

impl Control {
    /// From now on `LOCK TABLES` waits for InnoDB's lock on the table too, no longer than for the metadata
    /// lock. To be ended with [`Self::lock_names_only`].
    pub(crate) async fn lock_rows_too(&mut self, object: &str) -> DbResult<()> {
        let seconds = self.server.settings.lock_wait_timeout_s;
        let sql = format!(
            "SET SESSION innodb_table_locks = 1, autocommit = 0, innodb_lock_wait_timeout = {seconds}"
        );
        run(&mut self.session.conn, &sql, "setting up the session for", object).await.map(drop)
    }

    /// As it was before.
    pub(crate) async fn lock_names_only(&mut self, object: &str) -> DbResult<()> {
        let seconds = self.server.settings.row_lock_wait_timeout_s;
        let sql = format!("SET SESSION autocommit = 1, innodb_lock_wait_timeout = {seconds}");
        run(&mut self.session.conn, &sql, "setting up the session for", object).await.map(drop)
    }
}

/// In words, which prepared transactions there are; empty where there is none.
pub(crate) async fn prepared(session: &mut Session) -> String {
    match rows(&mut session.conn, "XA RECOVER", "listing prepared transactions", "").await {
        Ok(found) if found.is_empty() => String::new(),
        Ok(found) => {
            let names: Vec<String> =
                found.iter().take(NAMED_MAX).map(|row| format!("{:?}", text(row, 3))).collect();
            format!(
                ". {} prepared transaction(s) may hold it ({}): commit or roll them back (XA COMMIT, XA \
                 ROLLBACK)",
                found.len(),
                names.join(", ")
            )
        }
        Err(_) => ". Whether a prepared transaction (XA) holds it cannot be seen: that takes the \
                   privilege XA_RECOVER_ADMIN"
            .to_owned(),
    }
}
