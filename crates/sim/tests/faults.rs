//! The checker bites: every fault is caught, and without it the same seeds pass.

use underpin_sim::{Fault, Invariant, Options, first_caught, run};

/// Seeds in which a fault must show.
const SEEDS_MAX: u64 = 6_000;

/// Which promises a fault may be seen to break. Whichever comes first in a run is reported.
fn expected(fault: Fault) -> &'static [Invariant] {
    use Invariant as I;
    match fault {
        Fault::ApplyDuringChunk
        | Fault::StaleFrontier
        | Fault::SourceThenLog
        | Fault::NewKeyOnly
        | Fault::EntriesByKey
        | Fault::Replace
        | Fault::InsertIgnore
        | Fault::EndBeforeTriggers
        | Fault::SettleForgets
        | Fault::SettlePiecemeal
        | Fault::BoundaryApart
        | Fault::UnloggedShadow
        | Fault::TriggersWithoutLock => {
            &[I::Frontier, I::EqualOrPending, I::ExactChunks, I::RealViolation, I::AtomicSwap]
        }
        Fault::ConsumeByLastId
        | Fault::FloorTooEarly
        | Fault::CursorByXid
        | Fault::SavepointInLog
        | Fault::PreparedForgotten
        | Fault::BoundaryLate
        | Fault::UnloggedLog => &[I::AtomicSwap, I::RealViolation, I::RightEnding],
        Fault::LogThenSource
        | Fault::BatchOnly
        | Fault::OneKeyAtATime
        | Fault::IndexesUnsettled
        | Fault::ClashIsViolation => &[I::RealViolation],
        // Begun again without a record of it, a run does not know its own tables.
        Fault::ChunkBeforeSave => {
            &[I::ExactChunks, I::Frontier, I::EqualOrPending, I::RealViolation, I::RightEnding]
        }
        Fault::MarkApart | Fault::RetryBlindly | Fault::NoFence => {
            &[I::ExactChunks, I::Frontier, I::EqualOrPending, I::RealViolation]
        }
        Fault::DrainBeforeLock | Fault::DrainSnapshotEarly | Fault::NameOrder => &[I::AtomicSwap],
        // By blocks the two renames leave no capture behind, which a run that keeps the way back ends by.
        Fault::TwoRenames => &[I::AtomicSwap, I::RightEnding, I::EqualOrPending],
        Fault::MarkerIgnored => &[I::AtomicSwap, I::RightEnding],
        Fault::NoIdentityCheck => &[I::RightEnding, I::AtomicSwap, I::RealViolation],
        Fault::DrawAgain | Fault::PartsLoseDraws => &[I::FirstDraw],
        Fault::LogDroppedFirst => &[I::NoWriterError],
        Fault::GatesIgnored => &[I::Steered],
        Fault::ReturnLogLate => &[I::EqualOrPending, I::AtomicSwap, I::RightEnding],
        Fault::AbortRemoves | Fault::FinishDropsLive => {
            &[I::RightEnding, I::AtomicSwap, I::SourceUntouched]
        }
        Fault::TurnNotRecorded | Fault::TurnUnlooked => {
            &[I::RightEnding, I::SourceUntouched, I::EqualOrPending, I::AtomicSwap]
        }
        Fault::OldColumnAgain => &[I::FirstDraw],
        Fault::NoIdentityCheckBack => &[I::RightEnding, I::AtomicSwap, I::RealViolation],
        Fault::WrongLog => &[I::RightEnding, I::AtomicSwap],
        Fault::LateAtFinish => {
            &[I::SourceUntouched, I::RealViolation, I::AtomicSwap, I::RightEnding]
        }
        Fault::LateForgotten => &[I::AtomicSwap, I::EqualOrPending, I::RightEnding],
        Fault::OldOrders => &[I::Steered],
        // Who is not told that the swap may go waits for ever.
        Fault::OrdersForgotten => &[I::Steered, I::RightEnding],
    }
}

#[test]
fn every_fault_is_caught_and_its_seed_passes_without_it() {
    for (fault, name) in Fault::ALL {
        for flow in fault.flows() {
            let caught = first_caught(fault, *flow, SEEDS_MAX);
            let Some((seed, breach)) = caught else {
                panic!("{name} was not caught in {SEEDS_MAX} seeds, {flow:?}");
            };
            println!("{name:>22} {flow:?}: seed {seed:>4}: {breach}");
            assert!(
                expected(fault).contains(&breach.invariant),
                "{name} broke something else, {flow:?}, seed {seed}: {breach}"
            );
            let sound = run(seed, Options { flow: Some(*flow), ..Options::default() });
            assert_eq!(sound.breach, None, "seed {seed} without {name}, {flow:?}");
        }
    }
}

#[test]
fn names_of_faults_lead_back_to_them() {
    for (fault, name) in Fault::ALL {
        assert_eq!(fault.name(), name);
        assert_eq!(Fault::from_name(name), Some(fault));
    }
    assert_eq!(Fault::from_name("none"), None);
}
