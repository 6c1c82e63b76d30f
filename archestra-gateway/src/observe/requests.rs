//! What a runtime asks of what it stands on, as a metric that is read when it is asked for.

use archestra_core::runtime::Runtime;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, NoLabelSet},
    metrics::MetricType,
};
use std::{fmt, sync::Weak};

/// Counts nothing itself, and keeps no runtime alive.
#[derive(Debug)]
pub(super) struct Requests(pub(super) Weak<dyn Runtime>);

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    runtime: &'static str,
    verb: &'static str,
    resource: String,
}

impl Collector for Requests {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Some(runtime) = self.0.upgrade() else { return Ok(()) };
        let (name, requests) = (runtime.capabilities().name, runtime.requests());
        if requests.is_empty() {
            return Ok(());
        }
        let help = "Requests of a runtime to what it stands on";
        let mut family = encoder.encode_descriptor("runtime_requests", help, None, MetricType::Counter)?;
        for request in requests {
            let labels = Labels { runtime: name, verb: request.verb, resource: request.resource };
            family.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&request.count, None)?;
        }
        Ok(())
    }
}
