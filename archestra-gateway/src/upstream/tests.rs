//! `Upstreams` against in-process servers of both eras, well-behaved and not.

mod credentials;
mod exclusive;
mod failures;
mod legacy;
mod modern;
mod multiplexed;
mod peer;
mod support;
mod workloads;
