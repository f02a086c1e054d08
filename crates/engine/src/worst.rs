//! The worst that was read of each signal: for the summary and the history. Statistics only.

use serde::{Deserialize, Serialize};
use underpin_core::signal::{DISK_FREE, Reading, Unit};

/// Signals that are kept apart at most: names may be the user's own.
const SIGNALS_MAX: usize = 50;

/// The worst that was read of a signal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Worst {
    /// The signal's name.
    pub name: String,
    /// Whose it was, as "db2:3306"; empty for the server that is changed.
    pub of: String,
    /// What the number means.
    pub unit: Unit,
    /// The number.
    pub value: f64,
}

/// Takes readings into the list of the worst.
pub(crate) fn note(worst: &mut Vec<Worst>, readings: &[Reading]) {
    for reading in readings {
        let Some(value) = reading.value else { continue };
        let known = worst.iter_mut().find(|worst| {
            worst.name == reading.name && worst.of == reading.of && worst.unit == reading.unit
        });
        if let Some(known) = known {
            // Of free space less is worse.
            let worse = if reading.name == DISK_FREE { f64::min } else { f64::max };
            known.value = worse(known.value, value);
        } else if worst.len() < SIGNALS_MAX {
            let (name, of) = (reading.name.clone(), reading.of.clone());
            worst.push(Worst { name, of, unit: reading.unit, value });
        }
    }
}

#[cfg(test)]
mod tests {
    use underpin_core::signal::LAG;

    use super::*;

    #[test]
    fn the_worst_is_the_greatest_but_for_free_space() {
        let mut worst = Vec::new();
        let lag = |ms| Reading::new(LAG, "db2", "test", Unit::Ms, ms);
        let free = |bytes| Reading::new(DISK_FREE, "", "test", Unit::Bytes, bytes);
        let unread = Reading::unreadable(LAG, "db3", "test", Unit::Ms, "refused");
        note(&mut worst, &[lag(10.0), free(50.0), unread]);
        note(&mut worst, &[lag(5.0), free(20.0)]);
        note(&mut worst, &[lag(12.0), free(90.0)]);
        let values: Vec<f64> = worst.iter().map(|worst| worst.value).collect();
        assert_eq!(values, [12.0, 20.0]);
    }
}
