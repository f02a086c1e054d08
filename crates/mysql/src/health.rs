//! How the servers around us fare: signals, length of the log, orders, and who holds a table.
//!
//! Owns the probe: the heartbeat and what is read with it. Each part is a file: `beats` (what a beat
//! seen somewhere means), `follower` and `lag` (one replica), `replicas` (which there are), `load` (the
//! server itself), `own` (the user's queries), `holders` (for messages).

mod beats;
mod follower;
mod heart;
mod holders;
mod lag;
mod load;
mod own;
mod replicas;

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use underpin_core::plan::RunSpec;
use underpin_core::signal::{LAG, Reading, Unit, WRITE_LATENCY};
use underpin_dialect::{DbError, DbResult, ErrorKind, Order, OwnQuery};

use crate::backlog;
use crate::connect::Session;
use crate::database::MySql;
use crate::flavor::StatementTimeLimit;
use crate::query::{literal, quote, quote_table, run};
use crate::store::orders;
use beats::Beats;
use follower::Follower;
use heart::Heart;
use load::Load;
use own::OwnQueries;

pub(crate) use holders::{holders, old_holder};
pub(crate) use replicas::{Listed, Replica, list as list_replicas};

/// Bound on a statement of the probe: on the server, and a little later here.
const STATEMENT_MAX_MS: u32 = 5000;
const ANSWER_MAX: Duration = Duration::from_secs(6);

/// How often the replicas are listed anew.
const LIST_EVERY: Duration = Duration::from_secs(5);

/// How long the first round waits for replicas and queries that have not been heard yet.
const FIRST_WAIT: Duration = Duration::from_secs(3);

/// How often an asking probe gives a sign of life.
const SIGN_OF_LIFE_S: u32 = 5;

/// The probe's session to the primary, and all that watches beside it.
#[derive(Debug)]
pub struct Probe {
    session: Session,
    server: MySql,
    spec: Arc<RunSpec>,
    /// Made when signals are asked for, since a probe may only be asked for orders.
    watch: Option<Watch>,
}

/// What signals are read with.
#[derive(Debug)]
struct Watch {
    heart: Heart,
    followers: Vec<Follower>,
    /// Replicas that are not in the list any more, by name.
    vanished: Vec<String>,
    /// Readers of the log that are no replicas.
    strangers: Vec<String>,
    listed: Option<Instant>,
    load: Load,
    own: Option<OwnQueries>,
}

impl Probe {
    /// Opens the probe.
    ///
    /// # Errors
    /// The primary cannot be reached. Replicas that cannot be read are readings, not errors.
    pub(crate) async fn open(server: &MySql, spec: &Arc<RunSpec>) -> DbResult<Self> {
        let mut session = server.session().await?;
        bound_statements(&mut session, STATEMENT_MAX_MS).await?;
        Ok(Self { session, server: server.clone(), spec: Arc::clone(spec), watch: None })
    }

    async fn read_signals(&mut self, own: &[OwnQuery]) -> DbResult<Vec<Reading>> {
        let watch = match &mut self.watch {
            Some(watch) => watch,
            None => match Heart::begin(&mut self.session, &self.server, &self.spec).await {
                Ok(heart) => self.watch.insert(Watch::new(heart)),
                Err(error) => return self.without_heart(error).await,
            },
        };
        let wait_until = Instant::now() + FIRST_WAIT;
        watch.list(&mut self.session, &self.server).await?;
        watch.ask(&self.server, own);
        let mut readings = Vec::new();
        readings.extend(watch.heart.beat(&mut self.session).await?);
        let ours = self.server.sessions();
        readings.extend(watch.load.read(&mut self.session, &ours).await?);
        for follower in &mut watch.followers {
            follower.first_look(wait_until).await;
        }
        readings.extend(watch.lags());
        if let Some(own) = &mut watch.own {
            own.first_results(wait_until).await;
            readings.extend(own.readings());
        }
        Ok(readings)
    }

    /// The heartbeat could not be begun. That leaves the lag of replicas unknown; where there are none it is
    /// a write latency that cannot be read, and no more.
    async fn without_heart(&mut self, error: DbError) -> DbResult<Vec<Reading>> {
        if error.is_ambiguous() {
            return Err(error);
        }
        let found = list_replicas(&mut self.session, &self.server, &self.server.replicas, &[]);
        if !found.await?.replicas.is_empty() {
            return Err(error);
        }
        let why = error.server.clone().unwrap_or_else(|| error.to_string());
        Ok(vec![Reading::unreadable(WRITE_LATENCY, "", heart::SOURCE, Unit::Ms, &why)])
    }
}

impl Watch {
    fn new(heart: Heart) -> Self {
        Self {
            heart,
            followers: Vec::new(),
            vanished: Vec::new(),
            strangers: Vec::new(),
            listed: None,
            load: Load::default(),
            own: None,
        }
    }

    /// Looks for replicas that have come or gone.
    async fn list(&mut self, session: &mut Session, server: &MySql) -> DbResult<()> {
        if self.listed.is_some_and(|at| at.elapsed() < LIST_EVERY) {
            return Ok(());
        }
        let found = match list_replicas(session, server, &server.replicas, &self.strangers).await {
            Ok(found) => found,
            Err(error) if error.is_ambiguous() || self.listed.is_none() => return Err(error),
            // Those that are known go on being watched.
            Err(error) => {
                tracing::debug!(%error, "the replicas could not be listed");
                return Ok(());
            }
        };
        self.listed = Some(Instant::now());
        for stranger in found.strangers {
            if !self.strangers.contains(&stranger) {
                tracing::info!(
                    %stranger,
                    "it reads the binary log and is not known as a replica; where it is one, name the \
                     replicas with --replica"
                );
                self.strangers.push(stranger);
            }
        }
        for replica in &found.replicas {
            let known = self.followers.iter_mut().find(|one| one.replica.name == replica.name);
            match known {
                Some(known) if known.replica == *replica => {}
                Some(known) => *known = Follower::start(replica.clone(), self.heart.shared(server)),
                None => {
                    let follower = Follower::start(replica.clone(), self.heart.shared(server));
                    self.followers.push(follower);
                }
            }
        }
        self.vanished = self
            .followers
            .iter()
            .map(|follower| &follower.replica.name)
            .filter(|name| !found.replicas.iter().any(|replica| replica.name == **name))
            .cloned()
            .collect();
        Ok(())
    }

    /// Has the user's queries asked.
    fn ask(&mut self, server: &MySql, own: &[OwnQuery]) {
        if own.is_empty() {
            self.own = None;
        } else if !self.own.as_ref().is_some_and(|asked| asked.are(own)) {
            self.own = Some(OwnQueries::start(server, own));
        }
    }

    /// The lag of each replica.
    fn lags(&self) -> Vec<Reading> {
        let beats = self.heart.beats();
        let of = |follower: &Follower| {
            let name = &follower.replica.name;
            if self.vanished.contains(name) {
                let why = "it has left the server's list of replicas; where it is gone for good, start \
                           again with the others named by --replica";
                return Reading::unreadable(LAG, name, "list of replicas", Unit::Ms, why);
            }
            follower.reading(&beats)
        };
        self.followers.iter().map(of).collect()
    }
}

impl underpin_dialect::Probe for Probe {
    async fn signals(&mut self, own: &[OwnQuery]) -> DbResult<Vec<Reading>> {
        // Each statement is bounded on the server; what is waited for here is an answer that was lost.
        let limit = ANSWER_MAX + FIRST_WAIT;
        within(limit, "reading the signals of", "the server", self.read_signals(own)).await
    }

    async fn backlog(&mut self) -> DbResult<u64> {
        let log = quote_table(&self.spec.schema, &self.spec.names.log)?;
        let (attempted, table) = ("counting the log of", &self.spec.table);
        let from = self.server.floor.get();
        let answer = backlog::count(&mut self.session.conn, &log, from, attempted, table);
        match within(ANSWER_MAX, attempted, table, answer).await {
            // Before it is made and after it is dropped there is no log.
            Err(error) if error.kind == ErrorKind::NotFound => Ok(0),
            other => other,
        }
    }

    async fn requested(&mut self) -> DbResult<Vec<Order>> {
        let (attempted, run_id) = ("reading the orders for run", &self.spec.run_id);
        let state = quote(&self.server.state_schema)?;
        let id = literal(run_id)?;
        let conn = &mut self.session.conn;
        let answer = async {
            let orders = orders::take(conn, &self.server.state_schema, run_id).await?;
            let sql = format!(
                "UPDATE {state}.live SET seen_at = UTC_TIMESTAMP(6) WHERE run_id = {id} AND seen_at < \
                 UTC_TIMESTAMP(6) - INTERVAL {SIGN_OF_LIFE_S} SECOND"
            );
            run(conn, &sql, "giving a sign of life for run", run_id).await?;
            Ok(orders)
        };
        within(ANSWER_MAX, attempted, run_id, answer).await
    }

    async fn publish(&mut self, live: &str) -> DbResult<()> {
        let (attempted, run_id) = ("publishing how the run fares", &self.spec.run_id);
        let state = quote(&self.server.state_schema)?;
        // Nothing is left behind for a run that was closed meanwhile.
        let sql = format!(
            "INSERT INTO {state}.live (run_id, live, seen_at) SELECT run_id, {live}, UTC_TIMESTAMP(6) \
             FROM {state}.runs WHERE run_id = {} AND state = 'open' ON DUPLICATE KEY UPDATE live = \
             {live}, seen_at = UTC_TIMESTAMP(6)",
            literal(run_id)?,
            live = literal(live)?,
        );
        let answer = run(&mut self.session.conn, &sql, attempted, run_id);
        within(ANSWER_MAX, attempted, run_id, answer).await.map(|_| ())
    }
}

/// Has the server itself end statements of this session that take too long.
async fn bound_statements(session: &mut Session, limit_ms: u32) -> DbResult<()> {
    let sql = match session.capabilities.statement_time_limit {
        StatementTimeLimit::SelectMilliseconds => {
            format!("SET SESSION max_execution_time = {limit_ms}")
        }
        StatementTimeLimit::AnySeconds => {
            format!("SET SESSION max_statement_time = {}", f64::from(limit_ms) / 1000.0)
        }
    };
    run(&mut session.conn, &sql, "setting up the session for", "the probe").await.map(|_| ())
}

/// Awaits an answer for so long. Where none comes the session must not be used again, which is what a
/// lost connection means to whoever holds it.
async fn within<T>(
    limit: Duration,
    attempted: &str,
    object: &str,
    answer: impl Future<Output = DbResult<T>>,
) -> DbResult<T> {
    match tokio::time::timeout(limit, answer).await {
        Ok(answer) => answer,
        Err(_) => Err(DbError::new(ErrorKind::ConnectionLost, attempted, object)
            .said(format!("no answer within {} ms", limit.as_millis()))),
    }
}

/// The beats, whoever panicked while holding them: they are whole at all times.
fn locked(beats: &Arc<Mutex<Beats>>) -> std::sync::MutexGuard<'_, Beats> {
    beats.lock().unwrap_or_else(PoisonError::into_inner)
}
