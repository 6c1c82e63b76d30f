//! Servers that listen: two that want the same port, and a program that was quicker.

use super::help::{Place, ready, until, workload};
use archestra_core::{
    id::InstallationId,
    runtime::{Connection, Runtime, Workload, WorkloadId, WorkloadTransport},
};
use std::net::TcpListener;

fn on_port(place: &Place, mode: &str, port: u16) -> Workload {
    let mut work = workload(place, mode);
    work.spec.args.push("port=${archestra.http_port}".to_owned());
    work.spec.transport = WorkloadTransport::StreamableHttp { port: Some(port), path: "/mcp".to_owned() };
    work
}

/// One that nobody listens on.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[tokio::test]
async fn a_second_workload_waits_for_a_port_that_another_holds() {
    let place = Place::new("same-port");
    let runtime = place.runtime().await;
    let port = free_port();
    let first = on_port(&place, "mode=http", port);
    runtime.apply(&first).await.unwrap();
    ready(&runtime, &first.id).await;
    let second = Workload { id: WorkloadId::of_installation(InstallationId::new()), ..first.clone() };
    runtime.apply(&second).await.unwrap();
    let expected = format!("port {port} is held by another workload");
    until("the refusal", || async {
        runtime.status(&second.id).await.unwrap().reason.as_deref() == Some(expected.as_str())
    })
    .await;
    ready(&runtime, &first.id).await;
    runtime.remove(&first.id).await.unwrap();
    ready(&runtime, &second.id).await;
    let Connection::Http(endpoint) = runtime.connect(&second.id).await.unwrap() else { panic!("not http") };
    assert_eq!(endpoint.url, format!("http://127.0.0.1:{port}/mcp"));
    runtime.shutdown().await;
}

#[tokio::test]
async fn a_program_that_took_the_port_is_not_mistaken_for_the_server() {
    let place = Place::new("taken");
    let runtime = place.runtime().await;
    let port = free_port();
    let work = on_port(&place, "mode=silent", port);
    runtime.apply(&work).await.unwrap();
    until("the process", || async { place.alive().len() >= 2 }).await;
    let quicker = TcpListener::bind(("127.0.0.1", port)).unwrap();
    let expected = format!("port {port} is taken by another program");
    until("the refusal", || async {
        let status = runtime.status(&work.id).await.unwrap();
        status.reason.as_deref() == Some(expected.as_str()) && status.hint.is_some()
    })
    .await;
    runtime.remove(&work.id).await.unwrap();
    drop(quicker);
    assert_eq!(place.alive(), Vec::<String>::new());
    runtime.shutdown().await;
}

#[tokio::test]
async fn a_server_that_is_started_again_keeps_the_port_it_was_given() {
    let place = Place::new("kept-port");
    let runtime = place.runtime().await;
    let mut work = workload(&place, "mode=http");
    work.spec.args.push("port=${archestra.http_port}".to_owned());
    work.spec.transport = WorkloadTransport::StreamableHttp { port: None, path: "/mcp".to_owned() };
    runtime.apply(&work).await.unwrap();
    let url = || async {
        ready(&runtime, &work.id).await;
        let Connection::Http(endpoint) = runtime.connect(&work.id).await.unwrap() else { panic!("not http") };
        endpoint.url
    };
    let first = url().await;
    for restarts in 1..=2 {
        place.kill_child();
        until("the restart", || async { runtime.status(&work.id).await.unwrap().restarts == restarts }).await;
        assert_eq!(url().await, first);
    }
    runtime.shutdown().await;
}

#[tokio::test]
async fn a_server_that_listens_on_the_other_loopback_address_is_found_there() {
    if TcpListener::bind("[::1]:0").is_err() {
        // This machine has no IPv6.
        return;
    }
    let place = Place::new("ipv6");
    let runtime = place.runtime().await;
    let port = free_port();
    let work = on_port(&place, "mode=http6", port);
    runtime.apply(&work).await.unwrap();
    ready(&runtime, &work.id).await;
    let Connection::Http(endpoint) = runtime.connect(&work.id).await.unwrap() else { panic!("not http") };
    assert_eq!(endpoint.url, format!("http://[::1]:{port}/mcp"));
    runtime.shutdown().await;
}
