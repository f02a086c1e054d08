//! The walk that every test run makes.

use underpin_tests::servers::{Flavor, shared};
use underpin_tests::walk::{Flow, Plan, walk};

/// Walks a run by copy whose way back is kept, in brief and one blow after the other; fails at the first
/// finding. `points_min` are those without which the walk would not have come far.
pub(crate) fn walk_run(flavor: Flavor, nth: usize, points_min: usize) {
    let Some(server) = shared(flavor) else { return };
    let plan = Plan {
        server: server.clone(),
        flows: vec![Flow::Keep],
        lanes: 1,
        brief: Some(nth),
        deep: false,
        offset: 2,
        only: String::new(),
        talk: false,
    };
    let tally = walk(&plan).unwrap();
    eprintln!("{}: {tally}", flavor.name());
    assert!(tally.findings.is_empty(), "{}", tally.findings.join("\n"));
    assert_eq!(tally.skipped(&plan), Vec::<String>::new(), "{tally}");
    let points: usize = tally.points.values().map(std::collections::BTreeSet::len).sum();
    assert!(points >= points_min, "only {points} points were passed: {:?}", tally.points);
}
