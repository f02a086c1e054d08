//! A primary with one replica.
//!
//! Owns replication: setting it up, waiting for it, holding it up on purpose.

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use mysql_async::Row;

use super::{Flavor, Server, ServerSpec, sql, standby};

/// A primary and its replica: row-based binary log and GTID, or streaming and a slot.
#[derive(Debug)]
pub struct Pair {
    /// Takes the writes.
    pub primary: Server,
    /// Read-only (MySQL's root may still write), known to the primary by host and port, or by the
    /// name `replica`.
    pub replica: Server,
}

impl Pair {
    /// Starts both and waits until the replica follows.
    ///
    /// # Errors
    /// When a server cannot be fetched or does not come up, or replication does not run.
    pub fn start(spec: &ServerSpec) -> Result<Self> {
        if spec.flavor.is_postgres() {
            return Self::start_postgres(spec);
        }
        let replica_spec = spec.clone();
        let replica = thread::spawn(move || Server::start(&replica_spec, true));
        let primary = Server::start(spec, false);
        let replica = replica.join().map_err(|_| anyhow!("starting the replica panicked"))?;
        let pair = Self { primary: primary?, replica: replica? };
        pair.follow().context("starting replication")?;
        Ok(pair)
    }

    fn start_postgres(spec: &ServerSpec) -> Result<Self> {
        let primary = Server::start(spec, false)?;
        standby::prepare(&primary.url()).context("preparing replication")?;
        let replica = Server::start_standby(spec, primary.port())?;
        standby::wait_streaming(&primary.url()).context("starting replication")?;
        Ok(Self { primary, replica })
    }

    /// Waits until the replica has carried out all that the primary logged up to now.
    ///
    /// # Errors
    /// When it does not within `limit`.
    pub fn wait_caught_up(&self, limit: Duration) -> Result<()> {
        wait_caught_up(self.flavor(), &self.primary.url(), &self.replica.url(), limit)
    }

    /// Stops applying on the replica: it receives and falls behind.
    ///
    /// # Errors
    /// The server's words.
    pub fn stop_applying(&self) -> Result<()> {
        if self.flavor().is_postgres() {
            return standby::pause(&self.replica.url());
        }
        let sql =
            if self.is_mariadb() { "STOP SLAVE SQL_THREAD" } else { "STOP REPLICA SQL_THREAD" };
        sql::execute(&self.replica.url(), vec![sql.to_owned()])
    }

    /// Lets the replica apply again.
    ///
    /// # Errors
    /// The server's words.
    pub fn start_applying(&self) -> Result<()> {
        if self.flavor().is_postgres() {
            return standby::resume(&self.replica.url(), self.primary.port());
        }
        let sql = if self.is_mariadb() { "START SLAVE" } else { "START REPLICA" };
        sql::execute(&self.replica.url(), vec![sql.to_owned()])
    }

    /// Stops replication altogether: the server then reports no lag at all.
    ///
    /// # Errors
    /// The server's words.
    pub fn stop_replica(&self) -> Result<()> {
        if self.flavor().is_postgres() {
            return standby::cut_off(&self.replica.url());
        }
        let sql = if self.is_mariadb() { "STOP SLAVE" } else { "STOP REPLICA" };
        sql::execute(&self.replica.url(), vec![sql.to_owned()])
    }

    /// Makes the replica apply everything `seconds` late; 0 ends that.
    ///
    /// # Errors
    /// The server's words.
    pub fn delay_replica(&self, seconds: u32) -> Result<()> {
        if self.flavor().is_postgres() {
            return standby::delay(&self.replica.url(), seconds);
        }
        let statements = if self.is_mariadb() {
            ["STOP SLAVE", &format!("CHANGE MASTER TO MASTER_DELAY={seconds}"), "START SLAVE"]
                .map(str::to_owned)
        } else {
            [
                "STOP REPLICA",
                &format!("CHANGE REPLICATION SOURCE TO SOURCE_DELAY={seconds}"),
                "START REPLICA",
            ]
            .map(str::to_owned)
        };
        sql::execute(&self.replica.url(), statements.to_vec())
    }

    /// Which server this is.
    #[must_use]
    pub const fn flavor(&self) -> Flavor {
        self.primary.flavor()
    }

    const fn is_mariadb(&self) -> bool {
        self.flavor().is_mariadb()
    }

    fn follow(&self) -> Result<()> {
        let port = self.primary.port();
        let statements = if self.is_mariadb() {
            vec![
                "SET GLOBAL gtid_slave_pos = ''".to_owned(),
                format!(
                    "CHANGE MASTER TO MASTER_HOST='127.0.0.1', MASTER_PORT={port}, \
                     MASTER_USER='root', MASTER_CONNECT_RETRY=1, MASTER_USE_GTID=slave_pos"
                ),
                "START SLAVE".to_owned(),
            ]
        } else {
            vec![
                format!(
                    "CHANGE REPLICATION SOURCE TO SOURCE_HOST='127.0.0.1', SOURCE_PORT={port}, \
                     SOURCE_USER='root', SOURCE_CONNECT_RETRY=1, SOURCE_AUTO_POSITION=1, \
                     GET_SOURCE_PUBLIC_KEY=1"
                ),
                "START REPLICA".to_owned(),
            ]
        };
        sql::execute(&self.replica.url(), statements)?;
        let url = self.replica.url();
        sql::wait_until("the replica runs", Duration::from_secs(30), || {
            Ok(replica_state(self.flavor(), &url)? == "Yes Yes")
        })?;
        let list = if self.is_mariadb() { "SHOW SLAVE HOSTS" } else { "SHOW REPLICAS" };
        let url = self.primary.url();
        sql::wait_until("the primary lists its replica", Duration::from_secs(30), || {
            Ok(sql::first_row(&url, list)?.is_some())
        })
    }
}

/// `IO SQL`, each `Yes`, `No` or `Connecting`.
fn replica_state(flavor: Flavor, url: &str) -> Result<String> {
    let (show, word) = if flavor.is_mariadb() {
        ("SHOW SLAVE STATUS", "Slave")
    } else {
        ("SHOW REPLICA STATUS", "Replica")
    };
    let Some(row) = sql::first_row(url, show)? else { return Ok("none".to_owned()) };
    Ok(format!(
        "{} {}",
        text(&row, &format!("{word}_IO_Running")),
        text(&row, &format!("{word}_SQL_Running"))
    ))
}

fn text(row: &Row, column: &str) -> String {
    row.get::<Option<String>, _>(column).flatten().unwrap_or_default()
}

/// Waits until the server at `replica_url` has applied what `primary_url` has logged up to now.
pub(super) fn wait_caught_up(
    flavor: Flavor,
    primary_url: &str,
    replica_url: &str,
    limit: Duration,
) -> Result<()> {
    if flavor.is_postgres() {
        return standby::wait_caught_up(primary_url, replica_url, limit);
    }
    let position =
        if flavor.is_mariadb() { "SELECT @@gtid_binlog_pos" } else { "SELECT @@gtid_executed" };
    let row = sql::first_row(primary_url, position)?.context("the primary has no position")?;
    let position: String = row.get(0).unwrap_or_default();
    let position = position.replace(['\n', ' '], "");
    let seconds = limit.as_secs();
    let wait = if flavor.is_mariadb() {
        format!("SELECT MASTER_GTID_WAIT('{position}', {seconds})")
    } else {
        format!("SELECT WAIT_FOR_EXECUTED_GTID_SET('{position}', {seconds})")
    };
    let row = sql::first_row(replica_url, &wait)?.context("the replica gave no answer")?;
    let reached = row.get::<Option<i64>, _>(0).flatten() == Some(0);
    anyhow::ensure!(reached, "the replica did not catch up within {seconds} s");
    Ok(())
}
