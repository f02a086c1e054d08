//! The walk that every test run makes.

use underpin_tests::servers::Flavor;
use underpin_tests::walk::{Flow, Plan, walk};

/// Plays side by side: most of a play waits for its server.
const LANES: usize = 3;

/// The points of a run without which the walk would not have come far.
const EXPECTED_MIN: usize = 80;

/// Walks a run by copy in brief; fails at the first finding.
pub(crate) fn walk_run(flavor: Flavor) {
    let plan = Plan {
        flavor,
        flows: vec![Flow::Run],
        lanes: LANES,
        brief: true,
        only: String::new(),
        talk: false,
    };
    let Some(tally) = walk(&plan).unwrap() else { return };
    eprintln!("{}: {tally}", flavor.name());
    assert!(tally.findings.is_empty(), "{}", tally.findings.join("\n"));
    assert!(tally.is_complete(&plan), "{tally}");
    let points: usize = tally.points.values().map(std::collections::BTreeSet::len).sum();
    assert!(points >= EXPECTED_MIN, "only {points} points were passed: {:?}", tally.points);
}
