//! The tables show the ratios that the figures give, and nothing where a figure is missing.

use std::collections::BTreeMap;

use super::{Memory, Report, json, markdown};
use crate::{
    args::Options,
    stats::Sample,
    target::{Era, Hop, Row, Upstream},
};

const HTTP: Upstream = Upstream::Http(Era::Modern);

fn sample(calls_per_second: f64, p50_us: f64) -> Sample {
    Sample { calls_per_second, p50_us, p99_us: p50_us * 3.0, cpu_us: 11.0, client_us: 12.0 }
}

fn row(hop: Hop, upstream: Upstream) -> Row {
    Row { hop, client: Era::Modern, upstream }
}

fn figures() -> BTreeMap<(usize, Row), Vec<Sample>> {
    let mut samples = BTreeMap::new();
    for callers in [1, 32] {
        samples.insert((callers, row(Hop::Direct, HTTP)), vec![sample(80_000.0, 20.0)]);
        samples.insert((callers, row(Hop::Nginx, HTTP)), vec![sample(40_000.0, 45.0)]);
        samples.insert((callers, row(Hop::Direct, Upstream::Stdio)), vec![sample(50_000.0, 15.0)]);
        samples.insert((callers, row(Hop::Gateway, Upstream::Stdio)), vec![sample(25_000.0, 75.0)]);
    }
    // The median of the three is the middle one.
    let rounds = vec![sample(10_000.0, 90.0), sample(30_000.0, 60.0), sample(90_000.0, 10.0)];
    samples.insert((1, row(Hop::Gateway, HTTP)), rounds.clone());
    samples.insert((32, row(Hop::Gateway, HTTP)), rounds);
    samples
}

#[test]
fn the_table_shows_medians_and_ratios() {
    let options = Options { connections: vec![1, 32], rounds: 3, ..Options::default() };
    let samples = figures();
    let memory = Some(Memory { idle_mib: Some(45.0), after_mib: None });
    let report = Report { options: &options, samples: &samples, memory, missing: &[] };
    let text = markdown(&report);
    for expected in [
        "| direct/http-modern | 80000 | 20.0 | 60.0 | 11.0 | 12.0 | – | – | – | – |",
        "| nginx/http-modern | 40000 | 45.0 | 135.0 | 11.0 | 12.0 | 0.50 | – | 25.0 | – |",
        "| gateway/modern/http-modern | 30000 | 60.0 | 180.0 | 11.0 | 12.0 | 0.38 | 0.75 | 40.0 | 1.60 |",
        "| gateway/modern/stdio | 25000 | 75.0 | 225.0 | 11.0 | 12.0 | 0.50 | – | 60.0 | – |",
        "32 callers | 0.75 | ≥ 0.65 | met |",
        "1 caller | 1.60 | ≤ 1.80 | met |",
        "32 callers | 0.50 | ≥ 0.60 | **missed** |",
        "MiB | 45.00 | ≤ 40.00 | **missed** |",
        "45.0 MiB idle, – MiB after the load",
    ] {
        assert!(text.contains(expected), "{expected} is not in\n{text}");
    }
}

#[test]
fn a_run_without_nginx_says_so_and_claims_no_ratio() {
    let options = Options { connections: vec![1, 32], ..Options::default() };
    let mut samples = figures();
    samples.retain(|(_, row), _| row.hop != Hop::Nginx);
    let missing = ["the nginx rows are missing".to_owned()];
    let report = Report { options: &options, samples: &samples, memory: None, missing: &missing };
    let text = markdown(&report);
    assert!(text.contains("**the nginx rows are missing**"), "{text}");
    assert!(!text.contains("÷ nginx, modern over http"), "{text}");
    let value = json(&report);
    let rows = value["rows"].as_array().unwrap();
    let gateway = rows.iter().find(|row| row["row"] == "gateway/modern/http-modern").unwrap();
    assert!(gateway["throughputOfNginx"].is_null());
    assert_eq!(gateway["rounds"].as_array().unwrap().len(), 3);
}
