//! An in-memory database, a seeded scheduler, hostile writers, and an independent checker: the machine
//! of `underpin-core`, the very one that runs in production, driven through thousands of days on which
//! everything goes wrong.
//!
//! Everything follows from a seed. [`run`] plays one; [`run_many`] plays many on two threads. The same
//! seed gives the same run on every machine, so a failure is replayed with its event log by
//! `cargo xtask sim --seed N`.
//!
//! Both flows of the machine are played: by key ranges on a server like MySQL, by blocks on one like
//! PostgreSQL. Half of the seeds go to each.
//!
//! What is simulated is the dialect and the engine: [`Fault`]s can be sown there, to show that the
//! checker bites. The machine itself is not touched.

mod checker;
mod clockwork;
mod db;
mod dice;
mod director;
mod fault;
mod losses;
mod many;
mod ops;
pub mod plants;
mod report;
mod runner;
mod scenario;
mod session;
mod steering;
mod world;
mod writers;

pub use fault::Fault;
pub use losses::LoseAt;
pub use many::{Summary, first_caught, run_many};
pub use report::{Breach, Counts, Invariant, Outcome};
pub use underpin_core::plan::Flow;

/// Steps of the scheduler after which a run counts as endless. Ordinary runs take some thousands.
const STEPS_MAX: u64 = 300_000;

/// How a seed is played.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// A rule that is broken on purpose.
    pub fault: Option<Fault>,
    /// Whether the event log is kept.
    pub keep_log: bool,
    /// Kill the program after this step of the scheduler, besides what the seed brings.
    pub crash_at: Option<u64>,
    /// Ask for an abort after this step of the scheduler.
    pub abort_at: Option<u64>,
    /// Lose this answer.
    pub lose_at: Option<LoseAt>,
    /// Play a short day without any other calamity, on which the change is taken back and made again.
    pub small: bool,
    /// The flow; where it is not given the fault, or else the seed, chooses it.
    pub flow: Option<Flow>,
}

/// The flow that a seed plays: half of the seeds go by key ranges, half by blocks.
fn flow_of(seed: u64, fault: Option<Fault>) -> Flow {
    let flow = if seed % 4 < 2 { Flow::KeyRanges } else { Flow::Blocks };
    match fault.map(Fault::flows) {
        Some(flows) if !flows.contains(&flow) => flows.first().copied().unwrap_or(flow),
        _ => flow,
    }
}

/// Plays one seed.
pub fn run(seed: u64, options: Options) -> Outcome {
    let flow = options.flow.unwrap_or_else(|| flow_of(seed, options.fault));
    let mut world = world::World::new(seed, flow, options);
    world.note_scenario();
    let ctx = clockwork::Ctx::new(world);
    director::start(&ctx);
    let steps = clockwork::run(&ctx, STEPS_MAX);
    let mut world = ctx.world();
    world.counts.steps = steps;
    if steps >= STEPS_MAX {
        world.checker.endless(format!("not ended after {steps} steps"));
    }
    let mut counts = world.counts;
    counts.rows_checked = world.checker.rows_checked;
    counts.answers = world.losses.answers;
    Outcome { seed, counts, breach: world.checker.breach().cloned(), log: world.take_log() }
}
