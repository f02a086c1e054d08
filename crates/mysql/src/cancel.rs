//! Cancel and confirm: ends a statement on the server and returns when that is proven.
//!
//! Dropping a future does not stop its statement: it goes on in the server and may commit. So every
//! time-out and abort comes through here: KILL from another session, then wait, within bounds, for one
//! of two proofs: the server's own answer to the statement, or the end of the session, which is told by
//! the lock that it holds until its transaction is over (see [`SessionId`]).
//!
//! Does not decide what a cancelled statement means for the run.

mod control;

use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::{Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout, timeout_at};
use underpin_dialect::{DbError, DbResult, ErrorKind};

use crate::connect::{ServerIdentity, SessionId, SessionSettings};
use crate::options::ConnectOptions;
use control::Control;

/// A KILL QUERY that came before its statement did has no effect: so it is sent again this often.
const KILL_AGAIN: Duration = Duration::from_millis(500);

/// How long to wait for proof. All times in milliseconds; each wait may be overrun by one statement of
/// the cancelling session (5 s at most) or by its reconnecting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CancelLimits {
    /// After KILL QUERY, before KILL CONNECTION. A large statement needs time to roll back.
    pub query_wait_ms: u64,
    /// After KILL CONNECTION, before giving up.
    pub connection_wait_ms: u64,
    /// Between two looks at the process list.
    pub poll_ms: u64,
}

impl Default for CancelLimits {
    fn default() -> Self {
        Self { query_wait_ms: 10_000, connection_wait_ms: 30_000, poll_ms: 20 }
    }
}

/// What the server says of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionState {
    /// It is not there: nothing of it runs, its transaction is over.
    Gone,
    /// It waits for a statement. One that is on its way there is not seen: whoever awaits an answer
    /// on that session must have it, or see the session gone.
    Idle,
    /// It runs a statement, or rolls one back.
    Running {
        /// The server's words for what it does.
        state: String,
    },
}

/// How a cancellable piece of work ended.
#[derive(Debug)]
pub enum Finished<T> {
    /// The server answered with success; perhaps only after the stop was asked for.
    Done(T),
    /// The server answered with an error (`Cancelled` where it was our KILL), so the statement ended.
    Failed(DbError),
    /// The answer is lost and the session is gone: nothing more will happen, but whether the statement
    /// took effect must be looked up.
    Unknown(DbError),
    /// Neither answer nor proof within the limits: it may still run. What is looked up now may change.
    StillRunning(DbError),
}

impl<T> Finished<T> {
    /// The value, or an error that `is_ambiguous()` where the outcome is not known.
    ///
    /// # Errors
    /// As the variants say.
    pub fn into_result(self) -> DbResult<T> {
        match self {
            Self::Done(value) => Ok(value),
            Self::Failed(error) => Err(error),
            Self::Unknown(error) | Self::StillRunning(error) => Err(error),
        }
    }
}

/// A session of its own for cancelling others, made anew when it is lost.
#[derive(Debug)]
pub struct Canceller {
    control: Control,
    limits: CancelLimits,
    sessions: Mutex<HashMap<u64, SessionId>>,
}

impl Canceller {
    /// Opens the cancelling session now: when it is needed the server may have no free connection.
    ///
    /// # Errors
    /// As [`crate::connect::connect`].
    pub async fn open(
        options: &ConnectOptions,
        settings: &SessionSettings,
        limits: CancelLimits,
    ) -> DbResult<Self> {
        Ok(Self {
            control: Control::open(options, settings).await?,
            limits,
            sessions: Mutex::new(HashMap::new()),
        })
    }

    /// The server that this canceller acts on.
    pub fn identity(&self) -> &ServerIdentity {
        self.control.identity()
    }

    /// Remembers a session, so that it can be cancelled by its number ([`Canceller::cancel_thread`]).
    pub fn register(&self, session: &SessionId) {
        self.sessions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(session.thread, session.clone());
    }

    /// Forgets a session that was closed.
    pub fn forget(&self, thread: u64) {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner).remove(&thread);
    }

    /// The numbers of all registered sessions.
    pub(crate) fn sessions(&self) -> Vec<u64> {
        let sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.keys().copied().collect()
    }

    /// Cancels what a registered session runs.
    ///
    /// # Errors
    /// As [`Canceller::cancel`]; `Refused` for a number that was not registered, which may be a stranger's.
    pub async fn cancel_thread(&self, thread: u64) -> DbResult<SessionState> {
        self.cancel(&self.registered(thread)?).await
    }

    /// Ends a registered session; returns when it is gone.
    ///
    /// # Errors
    /// As [`Canceller::end_session`]; `Refused` for a number that was not registered.
    pub async fn end_thread(&self, thread: u64) -> DbResult<()> {
        self.end_session(&self.registered(thread)?).await
    }

    fn registered(&self, thread: u64) -> DbResult<SessionId> {
        let sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.get(&thread).cloned().ok_or_else(|| {
            DbError::new(ErrorKind::Refused, "cancelling", format!("session {thread}"))
                .help("It is not one of ours")
        })
    }

    /// Ends the statement that a session runs: KILL QUERY, and KILL CONNECTION where that is not
    /// enough. Never returns [`SessionState::Running`].
    ///
    /// # Errors
    /// `Ambiguous` where the proof was not had within the limits.
    pub async fn cancel(&self, target: &SessionId) -> DbResult<SessionState> {
        let deadline = Instant::now() + Duration::from_millis(self.limits.query_wait_ms);
        loop {
            match self.interrupt(target).await {
                Ok(state @ (SessionState::Gone | SessionState::Idle)) => return Ok(state),
                Ok(SessionState::Running { .. }) => {}
                Err(error) if error.is_connection_lost() => {}
                Err(error) => return Err(error),
            }
            if !self.pause(deadline).await {
                return self.end_session(target).await.map(|()| SessionState::Gone);
            }
        }
    }

    /// Ends a session and returns when it is gone. To be used for sessions of a runner that died, and
    /// wherever a statement may still be on its way to the server.
    ///
    /// # Errors
    /// `Ambiguous` where it was not gone within the limits.
    pub async fn end_session(&self, target: &SessionId) -> DbResult<()> {
        let deadline = Instant::now() + Duration::from_millis(self.limits.connection_wait_ms);
        let mut killed = false;
        loop {
            let last = match self.control.look(target).await {
                Ok(SessionState::Gone) => return Ok(()),
                // Once is enough: it marks the thread for good.
                Ok(state) if killed => Ok(state),
                Ok(state) => match self.control.kill("CONNECTION", target).await {
                    Ok(sent) => {
                        killed = sent;
                        Ok(state)
                    }
                    Err(error) => Err(error),
                },
                Err(error) => Err(error),
            };
            if let Err(error) = &last
                && error.kind == ErrorKind::AccessDenied
            {
                return last.map(drop);
            }
            if !self.pause(deadline).await {
                return Err(unproven(target, &last));
            }
        }
    }

    /// Runs `work` on the session `target`, and ends it on the server when `stop` comes first.
    ///
    /// `work` is polled until there is proof that its statement ended; only when the limits run out is
    /// it dropped, and [`Finished::StillRunning`] says so. The session may be used again after `Done`
    /// and `Failed` alone.
    pub async fn run<T>(
        &self,
        target: &SessionId,
        stop: impl Future<Output = ()>,
        work: impl Future<Output = DbResult<T>>,
    ) -> Finished<T> {
        let mut work = pin!(work);
        let mut answer = None;
        tokio::select! {
            biased;
            result = work.as_mut() => answer = Some(result),
            () = stop => {}
        }
        if answer.is_none() {
            self.interrupt_until_answered(target, work.as_mut(), &mut answer).await;
        }
        match answer {
            Some(Ok(value)) => Finished::Done(value),
            Some(Err(error)) if !error.is_connection_lost() => Finished::Failed(error),
            // Lost on its own or by then: the statement may run on without us.
            Some(Err(lost)) => match self.end_session(target).await {
                Ok(()) => Finished::Unknown(lost),
                Err(error) => Finished::StillRunning(error),
            },
            None => self.end_and_hear(target, work.as_mut()).await,
        }
    }

    /// KILL QUERY, again and again, until the work has its answer or the wait is over.
    async fn interrupt_until_answered<T>(
        &self,
        target: &SessionId,
        mut work: Pin<&mut impl Future<Output = DbResult<T>>>,
        answer: &mut Option<DbResult<T>>,
    ) {
        let deadline = Instant::now() + Duration::from_millis(self.limits.query_wait_ms);
        while answer.is_none() && Instant::now() < deadline {
            // A KILL that cannot be sent now may be sent at the next turn.
            let _ = alongside(work.as_mut(), answer, self.interrupt(target)).await;
            let again = std::cmp::min(Instant::now() + KILL_AGAIN, deadline);
            if answer.is_none() {
                *answer = timeout_at(again, work.as_mut()).await.ok();
            }
        }
    }

    /// KILL CONNECTION, then the answer if one came after all.
    async fn end_and_hear<T>(
        &self,
        target: &SessionId,
        mut work: Pin<&mut impl Future<Output = DbResult<T>>>,
    ) -> Finished<T> {
        let mut answer = None;
        let ended = alongside(work.as_mut(), &mut answer, self.end_session(target)).await;
        if answer.is_none() && ended.is_ok() {
            // The server has closed its end; ours hears of it at once unless the network is cut.
            let wait = Duration::from_millis(self.limits.query_wait_ms);
            answer = timeout(wait, work).await.ok();
        }
        match (answer, ended) {
            (Some(Ok(value)), _) => Finished::Done(value),
            (Some(Err(error)), _) if !error.is_connection_lost() => Finished::Failed(error),
            (Some(Err(lost)), Ok(())) => Finished::Unknown(lost),
            (None, Ok(())) => Finished::Unknown(lost_answer(target)),
            (_, Err(error)) => Finished::StillRunning(error),
        }
    }

    /// One look and, where something runs, one KILL QUERY and another look.
    async fn interrupt(&self, target: &SessionId) -> DbResult<SessionState> {
        match self.control.look(target).await? {
            SessionState::Running { .. } => {
                self.control.kill("QUERY", target).await?;
                self.control.look(target).await
            }
            state => Ok(state),
        }
    }

    /// What the server says of the session.
    ///
    /// # Errors
    /// The cancelling session's.
    pub async fn look(&self, target: &SessionId) -> DbResult<SessionState> {
        self.control.look(target).await
    }

    /// Waits until the next look; false where the deadline has passed.
    async fn pause(&self, deadline: Instant) -> bool {
        sleep(Duration::from_millis(self.limits.poll_ms)).await;
        Instant::now() < deadline
    }
}

/// Runs `step` to its end while `work` goes on; notes the answer of `work` when it comes.
///
/// `step` is never dropped half way: a KILL that is already on its way would hit a later statement.
async fn alongside<T, S>(
    mut work: Pin<&mut impl Future<Output = DbResult<T>>>,
    answer: &mut Option<DbResult<T>>,
    step: impl Future<Output = S>,
) -> S {
    let mut step = pin!(step);
    poll_fn(|context| {
        if answer.is_none()
            && let Poll::Ready(result) = work.as_mut().poll(context)
        {
            *answer = Some(result);
        }
        step.as_mut().poll(context)
    })
    .await
}

fn label(target: &SessionId) -> String {
    format!("session {}", target.thread)
}

fn unproven(target: &SessionId, last: &DbResult<SessionState>) -> DbError {
    let seen = match last {
        Ok(SessionState::Running { state }) => format!("it is still there ({state})"),
        Ok(_) => "it is still there".to_owned(),
        Err(error) => format!("the server could not be asked: {error}"),
    };
    DbError::new(ErrorKind::Ambiguous, "ending", label(target)).help(format!(
        "No proof that its statement ended: {seen}. Look at SHOW PROCESSLIST on the server, and go on \
         when the session has gone"
    ))
}

fn lost_answer(target: &SessionId) -> DbError {
    DbError::new(ErrorKind::ConnectionLost, "waiting for the answer", label(target))
        .help("The session was ended on the server and its answer never came")
}
