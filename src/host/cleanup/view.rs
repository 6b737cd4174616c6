//! How a plan and its outcome read to a person.

#[cfg(all(feature = "capture", target_os = "linux"))]
use super::apply::Cleanup;
use super::plan::Plan;
use std::fmt::Write;

/// The plan, one line a step.
#[must_use]
pub fn plan(plan: &Plan, phase: &str) -> String {
    let mut text =
        format!("cleanup plan, phase {phase}, roots from {}\n", super::plan::shown(&plan.host_file));
    for step in &plan.steps {
        let size = match &step.action {
            super::plan::Action::KillCgroup { processes, .. } => format!("{processes} processes"),
            super::plan::Action::DockerPrune | super::plan::Action::Give { .. } => String::new(),
            _ => format!("{} entries, {}", step.entries, bytes(step.bytes)),
        };
        let _infallible = writeln!(
            text,
            "{:>4}  {:<8} {}  ({}){}{size}",
            step.order,
            step.action.verb(),
            step.action.target(),
            step.why,
            if size.is_empty() { "" } else { "  " },
        );
    }
    let (entries, size) = plan.size();
    let _infallible = match plan.steps.len() {
        0 => writeln!(text, "nothing to clean up"),
        count => writeln!(text, "{count} steps, {entries} entries, {}", bytes(size)),
    };
    if let Some(why) = &plan.refused {
        let _infallible = writeln!(text, "refused: {why}");
    }
    text
}

/// What a cleanup did.
#[cfg(all(feature = "capture", target_os = "linux"))]
#[must_use]
pub fn outcome(done: &Cleanup) -> String {
    let mut text = format!(
        "{} steps carried out, {} entries removed, {}\n",
        done.steps.len(),
        done.removed_entries,
        bytes(done.removed_bytes)
    );
    for stayed in &done.stayed {
        let _infallible = writeln!(text, "stayed: {}: {}", stayed.path, stayed.why);
    }
    let listed = done.stayed.len() as u64;
    if done.stayed_count > listed {
        let _infallible = writeln!(text, "and {} more", done.stayed_count - listed);
    }
    text
}

fn bytes(count: u64) -> String {
    let units = [(1_u64 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match units.iter().find(|(size, _)| count >= *size) {
        Some((size, unit)) => {
            let tenths = u128::from(count) * 10 / u128::from(*size);
            format!("{}.{} {unit}", tenths / 10, tenths % 10)
        }
        None => format!("{count} bytes"),
    }
}

#[cfg(test)]
mod tests {
    use super::bytes;

    #[test]
    fn sizes_read_in_the_largest_unit_that_fits() {
        let cases = [
            (0, "0 bytes"),
            (1023, "1023 bytes"),
            (1024, "1.0 KiB"),
            (1_572_864, "1.5 MiB"),
            (u64::MAX, "17179869183.9 GiB"),
        ];
        for (count, expected) in cases {
            assert_eq!(bytes(count), expected);
        }
    }
}
