//! How the servers around us fare: lag of replicas, length of the log, requests, and who holds a table.

use std::sync::Arc;

use underpin_core::machine::Command;
use underpin_core::plan::RunSpec;
use underpin_core::signal::{LAG, Reading, Unit};
use underpin_dialect::{DbError, DbResult, ErrorKind, Order, OwnQuery};

use crate::connect::{Session, SessionSettings, connect};
use crate::database::MySql;
use crate::error::STATEMENT_UNREADABLE;
use crate::options::{self, ConnectOptions};
use crate::query::{first, literal, number, quote, quote_table, rows, run, text};
use crate::store::command_of;

/// Entries beyond which the length of the log is not counted on.
const BACKLOG_COUNTED_MAX: u64 = 200_000;

/// Where the lag is read.
const SOURCE: &str = "Seconds_Behind_Source";

/// A replica that is watched.
#[derive(Debug, Clone)]
pub(crate) struct Replica {
    /// How the user knows it, as `host:port`.
    pub(crate) name: String,
    /// How to reach it; an error text where that is not known.
    pub(crate) options: Result<ConnectOptions, String>,
}

/// The probe's sessions: one to the primary, one to each replica, made anew when lost.
#[derive(Debug)]
pub struct Probe {
    session: Session,
    server: MySql,
    spec: Arc<RunSpec>,
    replicas: Vec<(Replica, Option<Session>)>,
}

impl Probe {
    /// Opens the probe and finds the replicas.
    ///
    /// # Errors
    /// The primary cannot be reached. Replicas that cannot be read are readings, not errors.
    pub(crate) async fn open(server: &MySql, spec: &Arc<RunSpec>) -> DbResult<Self> {
        let mut session = server.session().await?;
        let replicas = replicas(&mut session, server, &server.replicas).await?;
        Ok(Self {
            session,
            server: server.clone(),
            spec: Arc::clone(spec),
            replicas: replicas.into_iter().map(|replica| (replica, None)).collect(),
        })
    }
}

impl underpin_dialect::Probe for Probe {
    async fn signals(&mut self, _own: &[OwnQuery]) -> DbResult<Vec<Reading>> {
        let mut readings = Vec::new();
        for (replica, session) in &mut self.replicas {
            let reading = match read_lag(replica, session, &self.server.settings).await {
                Ok(seconds) => {
                    let lag_ms = f64::from(seconds) * 1000.0;
                    Reading::new(LAG, &replica.name, SOURCE, Unit::Ms, lag_ms)
                }
                Err(error) => {
                    *session = None;
                    let why = error.server.clone().unwrap_or_else(|| error.to_string());
                    Reading::unreadable(LAG, &replica.name, SOURCE, Unit::Ms, &why)
                }
            };
            readings.push(reading);
        }
        Ok(readings)
    }

    async fn backlog(&mut self) -> DbResult<u64> {
        let log = quote_table(&self.spec.schema, &self.spec.names.log)?;
        let sql = format!(
            "SELECT COUNT(*) FROM (SELECT 1 FROM {log} WHERE id >= {} LIMIT {BACKLOG_COUNTED_MAX}) AS \
             entries",
            self.server.floor.get()
        );
        match number(&mut self.session.conn, &sql, "counting the log of", &self.spec.table).await {
            // Before it is made and after it is dropped there is no log.
            Err(error) if error.kind == ErrorKind::NotFound => Ok(0),
            other => other,
        }
    }

    async fn requested(&mut self) -> DbResult<Vec<Order>> {
        let runs = format!("{}.runs", quote(&self.server.state_schema)?);
        let id = literal(&self.spec.run_id)?;
        let sql = format!("SELECT requested FROM {runs} WHERE run_id = {id}");
        let conn = &mut self.session.conn;
        let object = &self.spec.run_id;
        let row = first(conn, &sql, "reading requests for run", object).await?;
        let word = row.map(|row| text(&row, 0)).unwrap_or_default();
        let command = command_of(&word);
        // A sign of life, at most every few seconds, and the request is taken away by reading it.
        let sql = format!(
            "UPDATE {runs} SET updated_at = UTC_TIMESTAMP(6), requested = IF(requested = {word}, '', \
             requested) WHERE run_id = {id} AND state = 'open' AND (requested <> '' OR updated_at < \
             UTC_TIMESTAMP(6) - INTERVAL 5 SECOND)",
            word = literal(&word)?
        );
        run(conn, &sql, "giving a sign of life for run", object).await?;
        Ok(command.map(order).into_iter().collect())
    }

    async fn publish(&mut self, _live: &str) -> DbResult<()> {
        Ok(())
    }
}

/// A request as an order of nobody in particular.
fn order(command: Command) -> Order {
    Order { command, by: String::new(), at: String::new(), taken_at: None }
}

/// The replicas to watch: those the user named, else those the server lists.
pub(crate) async fn replicas(
    session: &mut Session,
    server: &MySql,
    named: &[String],
) -> DbResult<Vec<Replica>> {
    if named.iter().any(|name| name == "none") {
        return Ok(Vec::new());
    }
    if !named.is_empty() {
        return Ok(named.iter().map(|url| named_replica(url, &server.options)).collect());
    }
    let verb = session.capabilities.show_replicas_verb;
    let listed = match rows(&mut session.conn, verb, "listing the replicas of", "the server").await
    {
        Ok(listed) => listed,
        // Without the privilege nobody can be watched; preflight says so.
        Err(error) if error.kind == ErrorKind::AccessDenied => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    Ok(listed
        .iter()
        .map(|row| {
            let (host, port) = (text(row, 1), text(row, 2));
            let name = format!("{host}:{port}");
            let options = match (host.is_empty(), port.parse()) {
                (false, Ok(port)) => Ok(ConnectOptions {
                    host,
                    port,
                    socket: None,
                    database: None,
                    ..server.options.clone()
                }),
                _ => Err("it does not tell its address (report_host)".to_owned()),
            };
            Replica { name, options }
        })
        .collect())
}

/// A replica given as URL; account and TLS come from the primary's where the URL has none.
fn named_replica(url: &str, primary: &ConnectOptions) -> Replica {
    match options::replica(url, primary) {
        Ok(options) => {
            Replica { name: format!("{}:{}", options.host, options.port), options: Ok(options) }
        }
        Err(error) => Replica { name: "replica".to_owned(), options: Err(error.to_string()) },
    }
}

async fn read_lag(
    replica: &Replica,
    kept: &mut Option<Session>,
    settings: &SessionSettings,
) -> DbResult<u32> {
    let unreadable =
        |why: &str| DbError::new(ErrorKind::Other, "reading the lag of", &replica.name).said(why);
    let options = replica.options.as_ref().map_err(|why| unreadable(why))?;
    if kept.is_none() {
        *kept = Some(connect(options, settings).await?);
    }
    let Some(session) = kept.as_mut() else { return Err(unreadable("not connected")) };
    let verb = session.capabilities.replica_status_verb;
    let found = rows(&mut session.conn, verb, "reading the lag of", &replica.name).await?;
    let Some(row) = found.first() else {
        return Err(unreadable("it does not replicate from anybody"));
    };
    let column = |names: [&str; 2]| {
        row.columns_ref()
            .iter()
            .position(|column| names.iter().any(|name| column.name_str() == *name))
            .map(|index| text(row, index))
            .unwrap_or_default()
    };
    let seconds = column(["Seconds_Behind_Source", "Seconds_Behind_Master"]);
    seconds.parse().map_err(|_| {
        let error = [
            column(["Last_SQL_Error", "Last_SQL_Error"]),
            column(["Last_IO_Error", "Last_IO_Error"]),
        ]
        .into_iter()
        .find(|text| !text.is_empty());
        unreadable(&error.unwrap_or_else(|| "its replication is not running".to_owned()))
    })
}

/// Who holds or waits for a table's metadata lock, in words; for messages only.
pub(crate) async fn holders(session: &mut Session, schema: &str, table: &str) -> String {
    let listed = if session.capabilities.metadata_locks_visible {
        lock_holders(session, schema, table).await
    } else {
        long_transactions(session).await
    };
    match listed {
        Ok(lines) if !lines.is_empty() => format!("It is held by {}", lines.join("; ")),
        _ => "Who holds it could not be seen".to_owned(),
    }
}

async fn lock_holders(session: &mut Session, schema: &str, table: &str) -> DbResult<Vec<String>> {
    let sql = format!(
        "SELECT t.PROCESSLIST_ID, t.PROCESSLIST_USER, t.PROCESSLIST_HOST, m.LOCK_TYPE, \
         t.PROCESSLIST_TIME, LEFT(COALESCE(t.PROCESSLIST_INFO, 'idle in a transaction'), 80) \
         FROM performance_schema.metadata_locks AS m JOIN performance_schema.threads AS t \
         ON t.THREAD_ID = m.OWNER_THREAD_ID WHERE m.OBJECT_TYPE = 'TABLE' AND m.OBJECT_SCHEMA = {} \
         AND m.OBJECT_NAME = {} AND m.LOCK_STATUS = 'GRANTED' AND t.PROCESSLIST_ID <> \
         CONNECTION_ID() ORDER BY t.PROCESSLIST_TIME DESC LIMIT 3",
        literal(schema)?,
        literal(table)?
    );
    let found = rows(&mut session.conn, &sql, "looking for lock holders of", table).await?;
    Ok(found
        .iter()
        .map(|row| {
            format!(
                "session {} of {}@{} ({}, {} s: {})",
                text(row, 0),
                text(row, 1),
                text(row, 2),
                text(row, 3),
                text(row, 4),
                text(row, 5)
            )
        })
        .collect())
}

/// Where the server does not show metadata locks: its oldest transactions are the likely holders.
async fn long_transactions(session: &mut Session) -> DbResult<Vec<String>> {
    let sql = "SELECT p.ID, p.USER, p.HOST, TIMESTAMPDIFF(SECOND, t.trx_started, NOW()), \
               LEFT(COALESCE(p.INFO, 'idle in a transaction'), 80) \
               FROM information_schema.INNODB_TRX AS t JOIN information_schema.PROCESSLIST AS p \
               ON p.ID = t.trx_mysql_thread_id WHERE p.ID <> CONNECTION_ID() \
               ORDER BY t.trx_started LIMIT 3";
    let found = rows(&mut session.conn, sql, "looking for old transactions", "").await?;
    Ok(found
        .iter()
        .map(|row| {
            format!(
                "perhaps session {} of {}@{} (transaction of {} s: {})",
                text(row, 0),
                text(row, 1),
                text(row, 2),
                text(row, 3),
                text(row, 4)
            )
        })
        .collect())
}

/// A session that has been in a transaction on the table for longer than `limit_s`; `None` where there
/// is none, or where the server does not show it.
pub(crate) async fn old_holder(
    session: &mut Session,
    schema: &str,
    table: &str,
    limit_s: u32,
) -> DbResult<Option<String>> {
    if !session.capabilities.metadata_locks_visible {
        return Ok(None);
    }
    let sql = format!(
        "SELECT t.PROCESSLIST_ID, t.PROCESSLIST_USER, t.PROCESSLIST_HOST, m.LOCK_TYPE, \
         TIMESTAMPDIFF(SECOND, x.trx_started, NOW()) \
         FROM performance_schema.metadata_locks AS m JOIN performance_schema.threads AS t \
         ON t.THREAD_ID = m.OWNER_THREAD_ID JOIN information_schema.INNODB_TRX AS x \
         ON x.trx_mysql_thread_id = t.PROCESSLIST_ID WHERE m.OBJECT_TYPE = 'TABLE' AND \
         m.OBJECT_SCHEMA = {} AND m.OBJECT_NAME = {} AND m.LOCK_STATUS = 'GRANTED' AND \
         t.PROCESSLIST_ID <> CONNECTION_ID() AND TIMESTAMPDIFF(SECOND, x.trx_started, NOW()) > \
         {limit_s} ORDER BY x.trx_started LIMIT 1",
        literal(schema)?,
        literal(table)?
    );
    let row = match first(&mut session.conn, &sql, "looking for old holders of", table).await {
        // Not to be seen just now; the lock's time-out bounds the wait all the same.
        Err(error) if error.code == Some(STATEMENT_UNREADABLE) => return Ok(None),
        other => other?,
    };
    Ok(row.map(|row| {
        format!(
            "session {} of {}@{} ({}, in a transaction for {} s)",
            text(&row, 0),
            text(&row, 1),
            text(&row, 2),
            text(&row, 3),
            text(&row, 4)
        )
    }))
}
