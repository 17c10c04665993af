//! `rekindle status` as text.

use std::fmt::Write;

use crate::boot::status::{PlanStatus, Status};

/// One screen: mode, what this boot did, the phases with their times, the last receipt.
pub(super) fn text(status: &Status, colour: bool) -> String {
    let mut out = String::new();
    let bold = |t: &str| if colour { format!("\x1b[1m{t}\x1b[0m") } else { t.to_owned() };
    // Writing into a String cannot fail.
    let mut line = |name: &str, value: &str| {
        writeln!(out, "{} {value}", bold(&format!("{name:<12}"))).unwrap_or_default()
    };
    line("mode", &status.mode);
    line("action", status.action.as_deref().unwrap_or("unknown"));
    if let Some(why) = &status.why {
        line("why", why);
    }
    line("provisioned", if status.provisioned { "yes" } else { "no" });
    if let Some(pending) = &status.pending {
        line("pending", pending);
    }
    for plan in &status.plans {
        line("", "");
        line("plan", &plan_head(plan));
        for phase in &plan.phases {
            let what = phase.change.map_or_else(|| phase.state.clone(), |c| format!("{c:?}").to_lowercase());
            line("", &format!("{:>9.3} s  {:<28} {what}", phase.ms as f64 / 1000.0, phase.phase));
            if let Some(why) = &phase.why {
                line("", &format!("             {why}"));
            }
        }
    }
    line("", "");
    let Some(receipt) = &status.receipt else {
        line("last reset", "none");
        return out;
    };
    line(
        "last reset",
        &format!("{} at {}, ordered by {}", receipt.outcome, receipt.finished, receipt.order.by),
    );
    if let Some(why) = &receipt.why {
        line("", why);
    }
    for e in &receipt.erased {
        line("", &format!("erased  {} ({}): {}", e.what, e.how, e.proof));
    }
    for k in &receipt.kept {
        line("", &format!("kept    {}: {} files, SHA-256 {}", k.what, k.files, k.sha256));
    }
    out
}

fn plan_head(plan: &PlanStatus) -> String {
    let total: u64 = plan.phases.iter().map(|p| p.ms).sum();
    format!("{} ({} phases, {:.3} s)", plan.plan, plan.phases.len(), total as f64 / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fresh_node_has_no_receipt_and_no_colours_in_a_pipe() {
        let status = Status { v: 1, mode: "active_boot".into(), ..Status::default() };
        let text = text(&status, false);
        assert!(text.contains("last reset   none"), "{text}");
        assert!(!text.contains('\x1b'));
    }
}
