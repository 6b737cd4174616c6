//! Who wrote what: for each layer of a run's evidence, and each field of it that somebody else wrote.
//!
//! A join says more than its weakest author only where another vouches for it: of the layers that are joined, the
//! measured program may have written one at most.

use crate::capture::Author;
use std::collections::BTreeMap;

/// What is the same in every run.
const ALWAYS: [(&str, Author); 11] = [
    ("effects.ndjson", Author::Kernel),
    ("layers/kernel.ndjson", Author::Kernel),
    ("events.ndjson", Author::Driver),
    ("events.ndjson#exit_code", Author::Driver),
    ("capability-surface.json", Author::Driver),
    ("correlation-report.json", Author::Driver),
    ("observation-health.json", Author::Driver),
    ("capture_proof.json", Author::Driver),
    ("tool_effects.json", Author::Driver),
    ("stdout.log", Author::Agent),
    ("stderr.log", Author::Agent),
];

/// Where the decider decided. A request is the agent's; that it was made, and what was decided on it, is the decider's.
const DECIDED: [(&str, Author); 6] = [
    ("layers/policy.ndjson", Author::Decider),
    ("layers/policy.ndjson#source", Author::Agent),
    ("layers/policy.ndjson#tool_call_id", Author::Agent),
    ("tool_effects.json#calls.effects", Author::Kernel),
    ("tool_effects.json#calls.server", Author::Agent),
    ("tool_effects.json#calls.tool_call_id", Author::Agent),
];

/// The origins of a run with these layers. `decided` says whether decisions are the decider's, by the run's own policy;
/// none where no policy layer is.
#[must_use]
pub fn origins(decided: Option<bool>, sdk: bool) -> BTreeMap<String, Author> {
    let policy: &[(&str, Author)] = match decided {
        None => &[],
        Some(true) => &DECIDED,
        Some(false) => &[("layers/policy.ndjson", Author::Agent)],
    };
    let sdk: &[(&str, Author)] = if sdk { &[("layers/sdk.ndjson", Author::Agent)] } else { &[] };
    let all = ALWAYS.iter().chain(policy).chain(sdk);
    all.map(|(what, author)| ((*what).to_owned(), *author)).collect()
}

/// How many of the layers that a join of a call needs are the measured program's own word.
#[must_use]
pub fn agents_layers(origins: &BTreeMap<String, Author>) -> usize {
    let joined = ["layers/kernel.ndjson", "layers/policy.ndjson", "layers/sdk.ndjson"];
    // A layer whose author is not known may be anybody's.
    joined.iter().filter(|layer| origins.get(**layer).is_none_or(|author| *author == Author::Agent)).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_layer_of_the_agents_is_the_most_that_a_join_bears() {
        assert_eq!(agents_layers(&origins(Some(true), true)), 1);
        assert_eq!(agents_layers(&origins(Some(false), true)), 2);
        assert_eq!(agents_layers(&BTreeMap::new()), 3, "what is not known is not vouched for");
    }
}
