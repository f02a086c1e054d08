//! Many cases side by side on one server: each change waits most of its time.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use anyhow::Result;
use underpin_tests::servers::Flavor;

/// Cases under way at the same time.
const AT_ONCE: usize = 6;

/// The cases to work off on this server: on the second MariaDB every third one, since it reads, converts
/// and compares as the first does. With `UNDERPIN_TEST_ALL` set it gets all of them.
pub(crate) fn share<C>(flavor: Flavor, cases: Vec<C>) -> Vec<C> {
    let is_second = flavor == Flavor::MariaDb118 && std::env::var_os("UNDERPIN_TEST_ALL").is_none();
    cases.into_iter().step_by(if is_second { 3 } else { 1 }).collect()
}

/// Works off the cases and fails with all that went wrong, not with the first only.
///
/// `UNDERPIN_TEST_CASE` narrows to cases whose names contain it.
pub(crate) fn each<C: Sync>(
    flavor: &str,
    cases: &[C],
    name: impl Fn(&C) -> String + Sync,
    work: impl Fn(&C) -> Result<()> + Sync,
) {
    let only = std::env::var("UNDERPIN_TEST_CASE").unwrap_or_default();
    let next = AtomicUsize::new(0);
    let failed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::SeqCst)) {
                    let name = name(case);
                    if !name.contains(&only) {
                        continue;
                    }
                    if let Err(error) = work(case) {
                        failed
                            .lock()
                            .unwrap_or_else(PoisonError::into_inner)
                            .push(format!("{flavor}, {name}: {error:#}"));
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
    assert!(failed.is_empty(), "{} cases failed:\n{}", failed.len(), failed.join("\n\n"));
}
