//! Evidence to verdict: acceptance, determinism, scenario rows, claims.
