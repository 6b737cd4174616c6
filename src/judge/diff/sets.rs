//! Sets compared: every value of both sides stands in exactly one of three lists.

use crate::evidence::CapabilitySurface;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// Two sets compared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetDiff<T: Ord = String> {
    /// In head only.
    pub added: BTreeSet<T>,
    /// In base only.
    pub removed: BTreeSet<T>,
    /// In both.
    pub unchanged: BTreeSet<T>,
}

impl<T: Ord> Default for SetDiff<T> {
    fn default() -> Self {
        Self { added: BTreeSet::new(), removed: BTreeSet::new(), unchanged: BTreeSet::new() }
    }
}

impl<T: Ord + Clone> SetDiff<T> {
    /// Compares `head` with `base`.
    #[must_use]
    pub fn of(base: &BTreeSet<T>, head: &BTreeSet<T>) -> Self {
        Self {
            added: head.difference(base).cloned().collect(),
            removed: base.difference(head).cloned().collect(),
            unchanged: base.intersection(head).cloned().collect(),
        }
    }

    /// Nothing added, nothing removed.
    #[must_use]
    pub fn is_same(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty()
    }
}

/// Two surfaces compared, category by category.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SurfaceDiff {
    /// Paths of opens.
    pub filesystem_paths: SetDiff,
    /// Peers of connects and sends.
    pub network_endpoints: SetDiff,
    /// Files that were executed.
    pub process_execs: SetDiff,
    /// Tools of decisions.
    pub mcp_tools: SetDiff,
    /// `<decision>:<tool>`.
    pub policy_decisions: SetDiff,
}

impl SurfaceDiff {
    /// Compares `head` with `base`.
    #[must_use]
    pub fn of(base: &CapabilitySurface, head: &CapabilitySurface) -> Self {
        Self {
            filesystem_paths: SetDiff::of(&base.filesystem_paths, &head.filesystem_paths),
            network_endpoints: SetDiff::of(&base.network_endpoints, &head.network_endpoints),
            process_execs: SetDiff::of(&base.process_execs, &head.process_execs),
            mcp_tools: SetDiff::of(&base.mcp_tools, &head.mcp_tools),
            policy_decisions: SetDiff::of(&base.policy_decisions, &head.policy_decisions),
        }
    }

    /// Name and difference of each category, in the contract's order.
    #[must_use]
    pub fn categories(&self) -> [(&'static str, &SetDiff); 5] {
        [
            ("filesystem_paths", &self.filesystem_paths),
            ("network_endpoints", &self.network_endpoints),
            ("process_execs", &self.process_execs),
            ("mcp_tools", &self.mcp_tools),
            ("policy_decisions", &self.policy_decisions),
        ]
    }

    /// No category differs.
    #[must_use]
    pub fn is_same(&self) -> bool {
        self.categories().iter().all(|(_, category)| category.is_same())
    }

    /// Some category has a value that base lacks.
    #[must_use]
    pub fn grew(&self) -> bool {
        self.categories().iter().any(|(_, category)| !category.added.is_empty())
    }
}
