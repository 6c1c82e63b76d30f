//! Images that cannot be pulled: whether it is the name, the credentials or the network.

use super::{Trouble, Verdict, quote};

/// The waiting reason whose text says why; the one that follows it no longer does.
pub(in crate::observe) const REMEMBERED: &str = "ErrImagePull";

const NAME: &str = "check the image's name and tag";
const CREDENTIALS: &str = "check imagePullSecrets: the registry wants a user and a password that may read this image";
const NETWORK: &str = "the node does not reach the registry: check the registry's address and the cluster's network";

/// What is to be said of an image that cannot be had.
pub(super) fn judge(image: &str, reason: &str, message: &str, troubles: &[Trouble]) -> Verdict {
    let text = quote(cause(message, troubles));
    let said = if text.is_empty() { format!("({reason})") } else { format!("({reason}): {text}") };
    match reason {
        "InvalidImageName" => Verdict::error(
            format!("{image:?} is not the name of an image {said}"),
            "correct image; it looks like registry/name:tag",
        ),
        "ErrImageNeverPull" => Verdict::error(
            format!("its image {image} is not on the node, and must not be pulled {said}"),
            "load the image into the node, or let the platform pull images",
        ),
        _ => Verdict::error(format!("its image {image} cannot be pulled {said}"), hint(&text)),
    }
}

/// While it backs off, the kubelet only says that it does; why is in the warnings before.
fn cause<'a>(message: &'a str, troubles: &'a [Trouble]) -> &'a str {
    if !message.is_empty() && !is_mere_back_off(message) {
        return message;
    }
    let told = troubles.iter().rev().find(|trouble| {
        trouble.reason == REMEMBERED || trouble.reason == "Failed" && is_about_a_pull(&trouble.message)
    });
    told.map_or(message, |trouble| trouble.message.as_str())
}

/// Whether a warning says why an image cannot be pulled.
fn is_about_a_pull(text: &str) -> bool {
    text.contains("pull") && !text.starts_with("Error: ") && !is_mere_back_off(text)
}

fn is_mere_back_off(text: &str) -> bool {
    text.starts_with("Back-off pulling image") && !text.contains("Err")
}

fn hint(text: &str) -> &'static str {
    let text = text.to_ascii_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
    if says(&["toomanyrequests", "too many requests", "rate limit"]) {
        "the registry limits how much is pulled: wait, or name credentials under imagePullSecrets"
    } else if says(&["x509", "certificate", "tls: "]) {
        "the node does not trust the registry's certificate: correct the address, or the trust store of the nodes"
    } else if says(&["server gave http response to https client"]) {
        "the registry speaks plain HTTP: give it a certificate, or allow it in the container runtime of the nodes"
    } else if says(&[
        "no such host",
        "connection refused",
        "i/o timeout",
        "dial tcp",
        "network is unreachable",
        "no route to host",
        "deadline exceeded",
        "connection reset",
    ]) {
        NETWORK
    } else if says(&["may require", "repository does not exist"]) {
        "check the image's name; if it is private, check imagePullSecrets"
    } else if says(&[
        "unauthorized",
        "authentication required",
        "authorization failed",
        "access denied",
        "401",
        "403",
        "forbidden",
        "denied",
        "no basic auth",
    ]) {
        CREDENTIALS
    } else if says(&["no match for platform", "no matching manifest"]) {
        "the image is not made for the node's processor architecture"
    } else if says(&["not found", "manifest unknown", "name unknown", "404"]) {
        NAME
    } else if says(&["no space left"]) {
        "the node's disk is full"
    } else {
        "check image and imagePullSecrets, and whether the node reaches the registry"
    }
}
