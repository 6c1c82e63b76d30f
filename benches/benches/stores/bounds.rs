//! What is wanted of a large catalog, by what was measured on a machine with two cores, with room for a slower one.

use archestra_benches::wanted::{Verdicts, Wanted};

use super::{Figures, Size};

/// Within this a change is in effect, whatever it is about.
const IN_EFFECT: f64 = 1000.0;
/// The longest that a page of so many records may take.
const PAGE_OF_100: f64 = 250.0;
const PAGE_OF_1000: f64 = 500.0;
/// Within this 99 of 100 calls are answered while everything is read again, a hundred times what they take otherwise.
const CALLED: f64 = 25.0;
/// What a snapshot may cost, whatever its size, and for each 1000 tools.
const BUILT: [f64; 2] = [2000.0, 150.0];
const MEMORY: [f64; 2] = [40.0, 6.0];

/// Judges the figures of one database.
pub(super) fn judge(figures: &Figures, size: Size) -> Verdicts {
    let tools = f64::from(u32::try_from(size.entries * size.tools_each).unwrap_or(u32::MAX)) / 1000.0;
    let bound = |[fixed, each]: [f64; 2]| Wanted::AtMost(fixed + each * tools);
    let worst = |rows: &[(String, [f64; 2])], part: &str| {
        let found = rows.iter().filter(|(what, _)| what.contains(part)).map(|(_, [_, worst])| *worst);
        found.reduce(f64::max)
    };
    Verdicts::default()
        .judge("a changed entry is in effect, worst (ms)", Some(figures.followed_ms[1]), Wanted::AtMost(IN_EFFECT))
        .judge(
            "a changed rule of one entry is, worst (ms)",
            worst(&figures.rules, "of one entry"),
            Wanted::AtMost(IN_EFFECT),
        )
        .judge(
            "a changed rule about every tool is, worst (ms)",
            worst(&figures.rules, "about every tool"),
            Wanted::AtMost(IN_EFFECT),
        )
        .judge("1000 changed tools are (ms)", Some(figures.thousand_ms[1]), Wanted::AtMost(IN_EFFECT))
        .judge(
            "99 of 100 calls while everything is read again (ms)",
            worst(&figures.calls, "read again, 99"),
            Wanted::AtMost(CALLED),
        )
        .judge("page of 100 records, worst (ms)", worst(&figures.pages, "100 "), Wanted::AtMost(PAGE_OF_100))
        .judge("page of 1000 records, worst (ms)", worst(&figures.pages, "1000 "), Wanted::AtMost(PAGE_OF_1000))
        .judge("snapshot from nothing (ms)", Some(figures.snapshot_ms), bound(BUILT))
        .judge("memory of the snapshot (MiB)", Some(figures.snapshot_mib), bound(MEMORY))
}
