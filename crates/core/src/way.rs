//! Which way a run goes: towards the new shape, or back to the old one.
//!
//! Once the swap is made and the way back is kept, going back is the same work with the parts
//! exchanged: the table that stands under the source's name is the source, the retired one is the
//! shadow, the return log is the log. So everything that catches up, compares and swaps works from a
//! [`RunSpec`] that was turned, and does not ask which way it goes; the few places that must ask look
//! at [`RunSpec::way`].

use serde::{Deserialize, Serialize};

use crate::mapping::{ColumnPair, KeyColumn, KeySpec, Mapping};
use crate::plan::{Names, RunSpec};

/// Which way a run goes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// Towards the new shape.
    #[default]
    Forward,
    /// Back to the old shape, after a swap.
    Back,
}

impl Way {
    /// The other way.
    pub fn turned(self) -> Self {
        match self {
            Self::Forward => Self::Back,
            Self::Back => Self::Forward,
        }
    }
}

impl RunSpec {
    /// The facts of the run as they are for this way.
    ///
    /// On the way back source and target of every column are exchanged, the names of shadow and retired
    /// table, and those of the two logs and their triggers. Columns that only the old shape has keep
    /// the values that they have (`volatile_added`).
    pub fn on_way(&self, way: Way) -> Self {
        if way == self.way {
            return self.clone();
        }
        let names = &self.names;
        let turned = Names {
            shadow: names.retired.clone(),
            retired: names.shadow.clone(),
            log: names.return_log.clone(),
            return_log: names.log.clone(),
            triggers: names.return_triggers.clone(),
            return_triggers: names.triggers.clone(),
            fences: names.fences.clone(),
        };
        Self {
            way,
            names: turned,
            mapping: self.mapping.turned(),
            key: self.key.turned(),
            // In the shape that stands already nothing was left for later.
            deferred_indexes: Vec::new(),
            volatile_added: self.mapping.dropped.clone(),
            ..self.clone()
        }
    }
}

impl Mapping {
    /// The same columns, seen from the new shape.
    fn turned(&self) -> Self {
        let pairs = self.pairs.iter().map(|pair| ColumnPair {
            source: pair.target.clone(),
            target: pair.source.clone(),
            changed: pair.changed,
        });
        Self { pairs: pairs.collect(), added: self.dropped.clone(), dropped: self.added.clone() }
    }
}

impl KeySpec {
    fn turned(&self) -> Self {
        let columns = self.columns.iter().map(|column| KeyColumn {
            source: column.target.clone(),
            target: column.source.clone(),
            fit: column.fit,
        });
        Self {
            source_index: self.target_index.clone(),
            target_index: self.source_index.clone(),
            columns: columns.collect(),
            same_order: self.same_order,
        }
    }
}
