//! What a changed entry asks of one of its installations, in the light of what was asked of it before.

use archestra_core::{
    catalog::{EntrySpec, FixedSecrets, Reinstall, ReinstallReason, reinstall},
    installation::{Installation, install_fields},
};
use std::collections::BTreeSet;

/// What happens to an installation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing.
    Leave,
    /// It follows with the values it has.
    Follow,
    /// It stays as it is until somebody gives what is missing.
    Ask(ReinstallReason),
}

/// Decides with [`reinstall`]; a change that takes back what an earlier one asked for lets the installation follow again.
pub(super) fn verdict(
    before: &EntrySpec,
    after: &EntrySpec,
    installation: &Installation,
    secrets: FixedSecrets,
) -> Verdict {
    let given: BTreeSet<String> = installation.values.keys().chain(&installation.secret_fields).cloned().collect();
    let pending = installation.reinstall_required.as_ref();
    match (reinstall(before, after, &given, secrets), pending) {
        (Reinstall::Required(reason), Some(pending)) if takes_back(pending, &reason) => {
            // Otherwise the change is judged like any other.
            let before = EntrySpec { credential: after.credential.clone(), ..before.clone() };
            match reinstall(&before, after, &given, secrets) {
                Reinstall::Required(reason) => Verdict::Ask(reason),
                Reinstall::Automatic | Reinstall::Nothing => Verdict::Follow,
            }
        }
        (Reinstall::Required(reason), _) => Verdict::Ask(reason),
        (Reinstall::Nothing, None) => Verdict::Leave,
        // Nothing is missing any more, else the change would be one that requires it.
        (Reinstall::Automatic, None) | (_, Some(ReinstallReason::NewInput(_))) => Verdict::Follow,
        (_, Some(ReinstallReason::TypeChanged(fields))) if !asked(after, fields) => Verdict::Follow,
        (_, Some(_)) => Verdict::Leave,
    }
}

fn takes_back(pending: &ReinstallReason, reason: &ReinstallReason) -> bool {
    matches!(
        (pending, reason),
        (ReinstallReason::OAuthAdded, ReinstallReason::OAuthRemoved)
            | (ReinstallReason::OAuthRemoved, ReinstallReason::OAuthAdded)
    )
}

fn asked(spec: &EntrySpec, names: &[String]) -> bool {
    install_fields(spec).iter().any(|field| names.contains(&field.name))
}
