//! What a passing run may say, and what no run ever says. The words are fixed.

/// The one claim that a passing invocation earns.
pub const CLAIM: &str = "for these deterministic fixtures, on this host, kernel, policy and SDK evidence correlate with low ambiguity under complete observation";

/// What is never claimed: key and sentence.
pub const NON_CLAIMS: [(&str, &str); 8] = [
    ("does_not_claim_malicious_behavior", "a measured effect says nothing about intent"),
    ("does_not_claim_root_cause", "what was measured does not say why it happened"),
    ("does_not_claim_policy_failure", "an allowed call with a further effect is not a failed policy"),
    ("does_not_claim_other_platforms", "nothing is said of other kernels, distributions or architectures"),
    ("does_not_claim_live_models", "no live model was called; the model is deterministic and local"),
    (
        "does_not_claim_other_sdks",
        "nothing is said of SDKs or SDK versions other than those named in the evidence",
    ),
    ("does_not_claim_fleets", "one host was measured; nothing is said of others"),
    ("does_not_claim_ordered_causality", "records are joined by id, never by time or order"),
];
