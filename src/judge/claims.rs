//! What a passing run may say, and what no run ever says. The words are fixed.

/// What the layers of a gate let it say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ClaimClass {
    /// Kernel, policy and SDK evidence.
    ThreeLayers,
    /// Kernel and policy evidence.
    KernelAndPolicy,
    /// Kernel evidence alone, or with a report that no policy decision goes with.
    KernelAlone,
}

impl ClaimClass {
    /// Every class, the widest first.
    pub const ALL: [Self; 3] = [Self::ThreeLayers, Self::KernelAndPolicy, Self::KernelAlone];

    /// Its name in `claims.json`.
    #[must_use]
    pub const fn id(self) -> &'static str {
        match self {
            Self::ThreeLayers => "three_layers",
            Self::KernelAndPolicy => "kernel_and_policy",
            Self::KernelAlone => "kernel_alone",
        }
    }

    /// What may be said once it is earned, word for word.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::ThreeLayers => {
                "for these deterministic fixtures, on this host, kernel, policy and SDK evidence correlate with low ambiguity under complete observation"
            }
            Self::KernelAndPolicy => {
                "for these deterministic fixtures, on this host, kernel and policy evidence correlate with low ambiguity under complete observation"
            }
            Self::KernelAlone => {
                "for these deterministic fixtures, on this host, the kernel evidence is the same in every run under complete observation"
            }
        }
    }
}

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
