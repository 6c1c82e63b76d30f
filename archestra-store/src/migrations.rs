//! The schema, as the list of steps that lead to it.

mod m20261120_000001_initial;
mod m20261120_000002_pages;
mod m20261120_000003_instance;
mod m20261120_000004_audit;
mod m20261130_000005_state;
mod m20261130_000006_oauth;

use sea_orm_migration::{MigrationTrait, MigratorTrait};

/// All steps, oldest first. A released step is never changed; a new one is added.
#[derive(Debug)]
pub(crate) struct Migrator;

impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![
            Box::new(m20261120_000001_initial::Initial),
            Box::new(m20261120_000002_pages::Pages),
            Box::new(m20261120_000003_instance::Instance),
            Box::new(m20261120_000004_audit::Audit),
            Box::new(m20261130_000005_state::State),
            Box::new(m20261130_000006_oauth::OAuth),
        ]
    }
}
