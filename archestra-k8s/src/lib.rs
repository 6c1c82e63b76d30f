//! The Kubernetes runtime of archestra: self-hosted MCP servers as Deployments.
//!
//! This crate is the place of the Kubernetes implementation of [`archestra_core::runtime::Runtime`]. It holds no code yet:
//! until it does, workloads run as local processes (`archestra_core::runtime::process`).
#![no_std]
