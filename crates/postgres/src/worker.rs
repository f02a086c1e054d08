//! A worker's session: its shape, its grip, and the transaction around everything it writes.
//!
//! Everything a worker does to source, shadow and log it does as the source's owner, so that no
//! expression of a user is ever evaluated with more rights than its author has. What belongs to the
//! run's record is done as the account that connected.

use std::sync::Arc;

use underpin_core::plan::RunSpec;
use underpin_dialect::{DbError, DbResult, Grip};

use crate::connect::{Session, users_meanings};
use crate::database::Postgres;
use crate::query::{number, run};
use crate::shape::Shape;
use crate::store;

/// See the module's head.
#[derive(Debug)]
pub struct Worker {
    pub(crate) session: Session,
    pub(crate) spec: Arc<RunSpec>,
    pub(crate) shape: Shape,
    pub(crate) grip: Grip,
    pub(crate) state_schema: String,
    lock_timeout_ms: u64,
}

impl underpin_dialect::Worker for Worker {
    fn session(&self) -> u64 {
        u64::from(self.session.id.pid)
    }

    /// The planner knows nothing of the new table yet, and an index-only scan needs to know which pages
    /// everybody can see. Beside verification: most of the time this takes one core while others wait.
    async fn tidy(&mut self) -> DbResult<()> {
        let what = "gathering statistics of the shadow of";
        let (session, table) = (&self.session, &self.shape.table);
        // An autovacuum of the shadow, which a large copy calls, gives way to who waits long enough.
        run(session, "SET lock_timeout = 0", what, table).await?;
        let sql = format!("VACUUM (ANALYZE) {}", self.shape.places.shadow);
        let done = run(session, &sql, what, table).await.map(drop);
        if done.as_ref().is_err_and(DbError::is_ambiguous) {
            return done;
        }
        // Not SET LOCAL: no transaction may be around it.
        let sql = format!("SET lock_timeout = {}", self.lock_timeout_ms);
        done.and(run(session, &sql, what, table).await.map(drop))
    }
}

impl Worker {
    /// A worker on a session of its own. Shadow, log and triggers must stand.
    ///
    /// # Errors
    /// As `connect` and [`Shape::read`].
    pub(crate) async fn open(
        server: &Postgres,
        spec: &Arc<RunSpec>,
        grip: &Grip,
    ) -> DbResult<Self> {
        let session = server.session().await?;
        let shape = Shape::read(&session, spec).await?;
        let state_schema = server.state_schema.clone();
        Ok(Self {
            session,
            spec: Arc::clone(spec),
            shape,
            grip: grip.clone(),
            state_schema,
            lock_timeout_ms: u64::from(server.settings.lock_timeout_ms),
        })
    }

    /// Begins a transaction in which each statement sees what is committed when it begins, and proves
    /// that the grip is not stale.
    ///
    /// The fence row is read with a shared lock that lasts until the transaction ends: a take-over,
    /// which writes the row, waits for us, and we can never commit behind its back.
    pub(crate) async fn begin(&mut self) -> DbResult<()> {
        self.begin_with("BEGIN ISOLATION LEVEL READ COMMITTED").await
    }

    /// Begins a transaction of one snapshot and proves that the grip is not stale.
    ///
    /// The source is locked against `TRUNCATE` and rewrites before the snapshot is taken: those do not
    /// keep old rows for old snapshots.
    pub(crate) async fn begin_snapshot(&mut self) -> DbResult<()> {
        let begin = format!("{}; SET LOCAL ROLE NONE", self.snapshot("REPEATABLE READ"));
        self.begin_with(&begin).await
    }

    /// The same for who only reads: nothing need be proven, and nothing is written.
    pub(crate) async fn begin_reading(&mut self) -> DbResult<()> {
        let object = self.shape.table.clone();
        let begin = self.snapshot("REPEATABLE READ, READ ONLY");
        let sql = format!("{begin}; {}", self.as_user());
        run(&self.session, &sql, "beginning to read", &object).await.map(|_| ())
    }

    fn snapshot(&self, mode: &str) -> String {
        let Shape { owner, places, .. } = &self.shape;
        format!(
            "BEGIN ISOLATION LEVEL {mode}; SET LOCAL ROLE {owner}; \
             LOCK TABLE ONLY {} IN ACCESS SHARE MODE",
            places.source
        )
    }

    async fn begin_with(&mut self, begin: &str) -> DbResult<()> {
        let object = self.shape.table.clone();
        let fence = store::fence_sql(&self.state_schema, &self.grip.run_id)?;
        let sql = format!("{begin}; {fence}; {}", self.as_user());
        let epoch = number(&self.session, &sql, "beginning a transaction on", &object).await;
        match epoch {
            Ok(epoch) if epoch == self.grip.epoch => Ok(()),
            Ok(_) => Err(store::fenced(&object)),
            Err(error) => Err(error),
        }
    }

    /// The statement from which on, until the transaction ends, we are the source's owner.
    pub(crate) fn as_owner(&self) -> String {
        // Compiling costs more than any statement of ours that is short, and estimates of a log are wild.
        format!("SET LOCAL ROLE {}; SET LOCAL jit = off", self.shape.owner)
    }

    /// The same, and the user's values mean what they mean to the owner's own ALTER.
    pub(crate) fn as_user(&self) -> String {
        format!("{}; {}", self.as_owner(), users_meanings())
    }

    /// Commits. A lost answer is a lost connection: the engine looks at the server before it goes on.
    pub(crate) async fn commit(&mut self) -> DbResult<()> {
        let object = self.shape.table.clone();
        run(&self.session, "COMMIT", "committing on", &object).await.map(|_| ())
    }

    /// Rolls back after `error`. Where the connection is gone the server does it by itself.
    pub(crate) async fn roll_back(&mut self, error: &DbError) -> DbResult<()> {
        if error.is_ambiguous() {
            return Err(error.clone());
        }
        let object = self.shape.table.clone();
        run(&self.session, "ROLLBACK", "rolling back on", &object).await.map(|_| ())
    }
}
