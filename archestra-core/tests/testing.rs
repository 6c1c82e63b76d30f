//! The testing tools themselves: what they do beyond the contracts, and that the suites notice what breaks one.
#![cfg(feature = "testing")]
#![expect(clippy::unwrap_used, clippy::panic, reason = "these are tests")]

mod testing {
    mod faulty;
    mod memory;
    mod scripted;
    mod suites;
}
