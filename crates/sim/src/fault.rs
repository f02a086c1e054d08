//! Faults that can be sown, to show that the checker bites. Each takes one rule of the protocol out of
//! the simulated dialect or engine; the machine itself has no fault code.

use underpin_core::plan::Flow;

/// A rule that is broken on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// The log is applied while chunks are in flight, up to the end of their round.
    ApplyDuringChunk,
    /// Entries are dropped beyond a frontier that has moved on meanwhile.
    StaleFrontier,
    /// Entries are consumed by `id > last seen`: an id that commits late is never seen.
    ConsumeByLastId,
    /// Apply reads the log in one snapshot and the source in a later one.
    LogThenSource,
    /// Apply reads the source in one snapshot and the log in a later one.
    SourceThenLog,
    /// A chunk's done mark has a transaction of its own.
    MarkApart,
    /// The last drain comes before the swap's lock.
    DrainBeforeLock,
    /// A change of a key logs the new key alone.
    NewKeyOnly,
    /// Consumed entries are deleted by key, not by id.
    EntriesByKey,
    /// Apply deletes the shadow's rows of its own batch alone, also where a unique value of theirs is
    /// still held by a row that is pending.
    BatchOnly,
    /// Apply replaces: whoever holds a unique value in the shadow is deleted.
    Replace,
    /// A chunk leaves out rows that clash.
    InsertIgnore,
    /// After an unknown outcome a chunk is simply sent again.
    RetryBlindly,
    /// Triggers take effect without waiting for transactions that wrote before.
    TriggersWithoutLock,
    /// The two-session swap with helper names that sort before the source's, and without a fence.
    NameOrder,
    /// The swap is two renames.
    TwoRenames,
    /// Nobody looks whether the source is still the same table with its triggers.
    NoIdentityCheck,
    /// Columns that only the new shape has are drawn again at each application.
    DrawAgain,
    /// A row with a first draw is deleted in one batch and written in a later one.
    PartsLoseDraws,
    /// Chunks begin before the plan of their round is durable.
    ChunkBeforeSave,
    /// The next runner does not wait until everything of the last one has ended.
    NoFence,
    /// Unique indexes are built while the shadow still holds stale rows.
    IndexesUnsettled,
    /// The log is removed before the triggers that write to it.
    LogDroppedFirst,
    /// Reading begins above the highest id seen although somebody may still hold a lower one.
    FloorTooEarly,
    /// A chunk's clash counts as a violation at once, although what it met may be pending.
    ClashIsViolation,
    /// Batches begin at the greatest transaction id of the last one: whoever was active then is never
    /// seen.
    CursorByXid,
    /// An entry bears the id of its savepoint, which no snapshot lists as active.
    SavepointInLog,
    /// What was active is told by the sessions: prepared transactions have none.
    PreparedForgotten,
    /// Apply deletes and writes one row after the other.
    OneKeyAtATime,
    /// The marker of a `TRUNCATE` means nothing; keys around it are applied one by one.
    MarkerIgnored,
    /// The end of the copy is fixed before the triggers stand.
    EndBeforeTriggers,
    /// Settling takes the entries from the log without noting their keys as to do.
    SettleForgets,
    /// Settling notes what is pending anew for each part of the shadow: parts that it has gone through
    /// keep rows of keys that became pending later.
    SettlePiecemeal,
    /// What has been taken from the log is committed before the rows are.
    BoundaryApart,
    /// Where the log is noted by stretches, what is taken is told by a snapshot from after the last one.
    BoundaryLate,
    /// The last drain reads in a snapshot from before the lock.
    DrainSnapshotEarly,
    /// The change log does not survive a crash of the server.
    UnloggedLog,
    /// The shadow does not survive a crash of the server.
    UnloggedShadow,
    /// Nobody tells the machine what the calendar allows.
    GatesIgnored,
    /// A program that goes on with a run does not read what people have ordered.
    OrdersForgotten,
    /// The new table's changes are captured only from after the swap on.
    ReturnLogLate,
    /// An abort while turning removes the table that is not live.
    AbortRemoves,
    /// Work of a turn begins before the turn is on record.
    TurnNotRecorded,
    /// A turn is taken from the record alone: nobody looks whether the swap before it was made.
    TurnUnlooked,
    /// Columns that only the old shape has are drawn again on the way back.
    OldColumnAgain,
    /// On the way back nobody looks whether the live table still is what it was.
    NoIdentityCheckBack,
    /// On the way back verification takes the pending keys of the other log.
    WrongLog,
    /// The end of a run that was taken back drops the new table by the name of the live one.
    FinishDropsLive,
    /// What came late to the retired table is not applied.
    LateForgotten,
    /// What came late is looked for once more at the end, where a turn that was left has written since.
    LateAtFinish,
    /// Orders for the way before are gone through again after a turn.
    OldOrders,
}

impl Fault {
    /// All faults with their names on the command line.
    pub const ALL: [(Self, &'static str); 51] = [
        (Self::ApplyDuringChunk, "apply-during-chunk"),
        (Self::StaleFrontier, "stale-frontier"),
        (Self::ConsumeByLastId, "consume-by-last-id"),
        (Self::LogThenSource, "log-then-source"),
        (Self::SourceThenLog, "source-then-log"),
        (Self::MarkApart, "mark-apart"),
        (Self::DrainBeforeLock, "drain-before-lock"),
        (Self::NewKeyOnly, "new-key-only"),
        (Self::EntriesByKey, "entries-by-key"),
        (Self::BatchOnly, "batch-only"),
        (Self::Replace, "replace"),
        (Self::InsertIgnore, "insert-ignore"),
        (Self::RetryBlindly, "retry-blindly"),
        (Self::TriggersWithoutLock, "triggers-without-lock"),
        (Self::NameOrder, "name-order"),
        (Self::TwoRenames, "two-renames"),
        (Self::NoIdentityCheck, "no-identity-check"),
        (Self::DrawAgain, "draw-again"),
        (Self::PartsLoseDraws, "parts-lose-draws"),
        (Self::ChunkBeforeSave, "chunk-before-save"),
        (Self::NoFence, "no-fence"),
        (Self::IndexesUnsettled, "indexes-unsettled"),
        (Self::LogDroppedFirst, "log-dropped-first"),
        (Self::FloorTooEarly, "floor-too-early"),
        (Self::ClashIsViolation, "clash-is-violation"),
        (Self::CursorByXid, "cursor-by-xid"),
        (Self::SavepointInLog, "savepoint-in-log"),
        (Self::PreparedForgotten, "prepared-forgotten"),
        (Self::OneKeyAtATime, "one-key-at-a-time"),
        (Self::MarkerIgnored, "marker-ignored"),
        (Self::EndBeforeTriggers, "end-before-triggers"),
        (Self::SettleForgets, "settle-forgets"),
        (Self::SettlePiecemeal, "settle-piecemeal"),
        (Self::BoundaryApart, "boundary-apart"),
        (Self::BoundaryLate, "boundary-late"),
        (Self::DrainSnapshotEarly, "drain-snapshot-early"),
        (Self::UnloggedLog, "unlogged-log"),
        (Self::UnloggedShadow, "unlogged-shadow"),
        (Self::GatesIgnored, "gates-ignored"),
        (Self::OrdersForgotten, "orders-forgotten"),
        (Self::ReturnLogLate, "return-log-late"),
        (Self::AbortRemoves, "abort-removes"),
        (Self::TurnNotRecorded, "turn-not-recorded"),
        (Self::TurnUnlooked, "turn-unlooked"),
        (Self::OldColumnAgain, "old-column-again"),
        (Self::NoIdentityCheckBack, "no-identity-check-back"),
        (Self::WrongLog, "wrong-log"),
        (Self::FinishDropsLive, "finish-drops-live"),
        (Self::LateForgotten, "late-forgotten"),
        (Self::LateAtFinish, "late-at-finish"),
        (Self::OldOrders, "old-orders"),
    ];

    /// The flows in which it breaks a rule.
    pub fn flows(self) -> &'static [Flow] {
        match self {
            Self::StaleFrontier
            | Self::ConsumeByLastId
            | Self::EntriesByKey
            | Self::NameOrder
            | Self::LogDroppedFirst
            | Self::FloorTooEarly
            | Self::DrawAgain
            | Self::PartsLoseDraws
            | Self::LateForgotten
            | Self::LateAtFinish
            | Self::ClashIsViolation => &[Flow::KeyRanges],
            Self::CursorByXid
            | Self::SavepointInLog
            | Self::PreparedForgotten
            | Self::OneKeyAtATime
            | Self::MarkerIgnored
            | Self::EndBeforeTriggers
            | Self::SettleForgets
            | Self::SettlePiecemeal
            | Self::BoundaryApart
            | Self::BoundaryLate
            | Self::DrainSnapshotEarly
            | Self::UnloggedLog
            | Self::UnloggedShadow => &[Flow::Blocks],
            _ => &[Flow::KeyRanges, Flow::Blocks],
        }
    }

    /// Whether it only shows on the way back.
    pub(crate) fn is_of_turns(self) -> bool {
        matches!(
            self,
            Self::ReturnLogLate
                | Self::AbortRemoves
                | Self::TurnNotRecorded
                | Self::TurnUnlooked
                | Self::OldColumnAgain
                | Self::NoIdentityCheckBack
                | Self::WrongLog
                | Self::FinishDropsLive
                | Self::LateAtFinish
                | Self::OldOrders
        )
    }

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(fault, _)| *fault == self).map_or("unknown", |(_, name)| name)
    }

    /// The fault of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, known)| *known == name).map(|(fault, _)| *fault)
    }
}
