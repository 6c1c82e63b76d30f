//! The testing tools themselves: what they do beyond the contracts, and that the suites notice what breaks one.
#![cfg(feature = "testing")]

mod testing {
    mod faulty;
    mod memory;
    mod scripted;
    mod suites;
}
