//! Saving and deleting consumers, with their assignments in the same commit.

use super::{ATTEMPTS, Lifecycle, assign::Assigner, check_expect, entry::Preview, now, raced};
use archestra_core::{
    Error, Finding, Result, Validate,
    catalog::{CatalogChanges, CatalogStoreExt, Entry, Lookup, Query, Scope},
    consumer::{
        Assignment, Consumer, ConsumerKind, ConsumerSpec, CredentialChoice, ToolAssignment, ToolExposure, ToolSelector,
    },
    feed::{Expect as FeedExpect, Version, Versioned},
    id::{ConsumerId, IdentityProviderId, TeamId, UserId},
    installation::{Installation, Owner},
    secret::Expect,
};
use std::collections::BTreeSet;

/// What a person wants a consumer to be.
#[derive(Debug, Clone)]
pub struct ConsumerDraft {
    /// Gateway or agent; it does not change.
    pub kind: ConsumerKind,
    /// What they filled in.
    pub spec: ConsumerSpec,
    /// Who may use it.
    pub scope: Scope,
    /// Which tools it is given, in manual mode.
    pub tools: Vec<ToolSelector>,
    /// The identity provider whose tokens it accepts.
    pub identity_provider: Option<IdentityProviderId>,
    /// Who makes it; a consumer that exists keeps its author.
    pub author: Option<UserId>,
    /// The `apply` set it belongs to; `None` keeps what a consumer has.
    pub apply_set: Option<String>,
    /// For a consumer of one user: the teams of that user, whose installations may then be pinned.
    pub user_teams: BTreeSet<TeamId>,
}

impl Lifecycle {
    /// Makes a consumer, or changes the one with this id, and gives it the tools that its selectors or labels say. What is
    /// saved as it is already is not written.
    ///
    /// A personal installation can be pinned only on a consumer of the same user. A team's can be pinned on a consumer of
    /// teams that include it, on one of a user who is in it, and on one of the organization.
    ///
    /// # Errors
    /// [`Invalid`](Error::Invalid) with everything that is wrong; [`AlreadyExists`](Error::AlreadyExists) when the slug is
    /// taken; [`NotFound`](Error::NotFound) for an id that does not exist, unless `expect` says so;
    /// [`Conflict`](Error::Conflict) when `expect` does not hold; and what the store answered.
    pub async fn save_consumer(
        &self,
        id: Option<ConsumerId>,
        draft: ConsumerDraft,
        expect: FeedExpect,
    ) -> Result<Versioned<Consumer>> {
        self.owned(move |this| async move {
            let (id, expect) = match id {
                Some(id) => (id, expect),
                None => (ConsumerId::new(), Expect::Absent),
            };
            this.save_consumer_owned(id, draft, expect).await
        })
        .await
    }

    /// Checks a draft as [`save_consumer`](Self::save_consumer) does, and says what saving it would do.
    ///
    /// # Errors
    /// As [`save_consumer`](Self::save_consumer).
    pub async fn preview_consumer(&self, id: Option<ConsumerId>, draft: ConsumerDraft) -> Result<Preview> {
        let (id, expect) = id.map_or((ConsumerId::new(), Expect::Absent), |id| (id, Expect::Any));
        let (present, consumer) = self.prepare_consumer(id, draft, expect).await?;
        Ok(match present {
            None => Preview::Create,
            Some(present) if same(&present.value, &consumer) => Preview::Unchanged,
            Some(_) => Preview::Update,
        })
    }

    /// Deletes a consumer with its assignments.
    ///
    /// # Errors
    /// [`NotFound`](Error::NotFound) without the consumer; [`Conflict`](Error::Conflict) when `expect` does not hold; and
    /// what the store answered.
    pub async fn delete_consumer(&self, id: ConsumerId, expect: FeedExpect) -> Result<()> {
        self.owned(move |this| async move { this.delete_consumer_owned(id, expect).await }).await
    }

    async fn save_consumer_owned(
        &self,
        id: ConsumerId,
        draft: ConsumerDraft,
        expect: FeedExpect,
    ) -> Result<Versioned<Consumer>> {
        let mut last = None;
        for _ in 0..ATTEMPTS {
            let (present, consumer) = self.prepare_consumer(id, draft.clone(), expect).await?;
            if let Some(present) = &present
                && same(&present.value, &consumer)
            {
                return Ok(present.clone());
            }
            let version = present.as_ref().map_or(Version(0), |present| present.version);
            let expect_present = present.as_ref().map_or(Expect::Absent, Versioned::expect);
            let mut changes = CatalogChanges::new().put(consumer.clone(), expect_present);
            changes.extend(Assigner::new(self).changes(&consumer).await?);
            match self.commit(changes).await {
                Ok(_) => return Ok(Versioned { version: Version(version.0 + 1), value: consumer }),
                Err(error) if raced(&error) => {
                    let at =
                        self.catalog().find_one::<Consumer>(Lookup::ConsumerAt(consumer.spec.slug.clone())).await?;
                    if at.is_some_and(|other| other.value.id != id) {
                        return Err(Error::already_exists("consumer", &consumer.spec.slug));
                    }
                    last = Some(error);
                }
                Err(error) => return Err(error),
            }
        }
        Err(last.unwrap_or_else(|| Error::conflict("consumer", id, "it is being changed all the time; try again")))
    }

    async fn prepare_consumer(
        &self,
        id: ConsumerId,
        draft: ConsumerDraft,
        expect: FeedExpect,
    ) -> Result<(Option<Versioned<Consumer>>, Consumer)> {
        let present = match self.catalog().get_one::<Consumer>(id).await {
            Ok(present) => Some(present),
            Err(Error::NotFound { .. }) if expect == Expect::Absent => None,
            Err(error) => return Err(error),
        };
        check_expect(id, present.as_ref(), expect)?;
        let before = present.as_ref().map(|present| &present.value);
        let findings = self.consumer_findings(&draft, before).await?;
        if !findings.is_empty() {
            return Err(Error::Invalid(findings));
        }
        let now = now();
        let consumer = Consumer {
            id,
            kind: draft.kind,
            spec: draft.spec,
            scope: draft.scope,
            tools: draft.tools,
            identity_provider: draft.identity_provider,
            author: before.map_or(draft.author, |before| before.author),
            apply_set: draft.apply_set.or_else(|| before.and_then(|before| before.apply_set.clone())),
            created_at: before.map_or(now, |before| before.created_at),
            updated_at: now,
        };
        Ok((present, consumer))
    }

    async fn consumer_findings(&self, draft: &ConsumerDraft, before: Option<&Consumer>) -> Result<Vec<Finding>> {
        let mut findings = draft.spec.findings();
        if draft.spec.tool_exposure == ToolExposure::Search {
            findings.push(Finding::new(
                "toolExposure",
                "this version lists all tools of a consumer and has no search",
                "leave it out, or set `toolExposure: full`",
            ));
        }
        if let Some(before) = before {
            if before.spec.slug != draft.spec.slug {
                findings.push(Finding::new(
                    "slug",
                    "the slug of a consumer cannot be changed",
                    "make another consumer",
                ));
            }
            if before.kind != draft.kind {
                findings.push(Finding::new(
                    "kind",
                    "a gateway cannot become an agent, nor the reverse",
                    "make another consumer",
                ));
            }
        }
        if matches!(&draft.scope, Scope::Teams(teams) if teams.is_empty()) {
            findings.push(Finding::new(
                "scope.teams",
                "no team is named, so nobody could use it",
                "name a team, or use another scope",
            ));
        }
        if draft.spec.tool_assignment == ToolAssignment::Automatic && !draft.tools.is_empty() {
            let remedy = "remove `tools`, or set `toolAssignment: manual`";
            findings.push(Finding::new("tools", "labels decide in automatic mode, so tools cannot be named", remedy));
        }
        for (n, selector) in draft.tools.iter().enumerate() {
            let twice =
                draft.tools[..n].iter().any(|other| other.entry == selector.entry && other.tool == selector.tool);
            let found = if twice {
                Some(Finding::new("tool", "the same tool is named twice", "keep one"))
            } else {
                self.selector_finding(draft, selector).await?
            };
            findings.extend(found.map(|finding| finding.under(&format!("tools[{n}]"))));
        }
        Ok(findings)
    }

    async fn selector_finding(&self, draft: &ConsumerDraft, selector: &ToolSelector) -> Result<Option<Finding>> {
        if selector.tool.trim().is_empty() {
            return Ok(Some(Finding::new(
                "tool",
                "no tool is named",
                "use the server's name of the tool, or `*` for all",
            )));
        }
        match self.catalog().get_one::<Entry>(selector.entry).await {
            Ok(_) => {}
            Err(Error::NotFound { .. }) => {
                return Ok(Some(Finding::new(
                    "entry",
                    format!("entry {} does not exist", selector.entry),
                    "name one that does",
                )));
            }
            Err(error) => return Err(error),
        }
        let CredentialChoice::Pinned(pin) = selector.credential else { return Ok(None) };
        match self.catalog().get_one::<Installation>(pin).await {
            Ok(installation) => Ok(pin_finding(draft, selector, &installation.value)),
            Err(Error::NotFound { .. }) => {
                let remedy = "pin one that exists, or use `resolveAtCallTime`";
                Ok(Some(Finding::new("credential", format!("installation {pin} does not exist"), remedy)))
            }
            Err(error) => Err(error),
        }
    }

    async fn delete_consumer_owned(&self, id: ConsumerId, expect: FeedExpect) -> Result<()> {
        let mut last = None;
        for _ in 0..ATTEMPTS {
            let present = self.catalog().get_one::<Consumer>(id).await?;
            check_expect(id, Some(&present), expect)?;
            let mut changes = CatalogChanges::new();
            let query = Query::Assignments { consumer: Some(id), entry: None, installation: None };
            for assignment in self.catalog().list_all::<Assignment>(query).await? {
                changes.push_delete(assignment.value.id, Expect::Any);
            }
            changes.push_delete(id, present.expect());
            match self.commit(changes).await {
                Ok(_) => return Ok(()),
                Err(error) if raced(&error) => last = Some(error),
                Err(error) => return Err(error),
            }
        }
        Err(last.unwrap_or_else(|| Error::conflict("consumer", id, "it is being changed all the time; try again")))
    }
}

fn same(a: &Consumer, b: &Consumer) -> bool {
    let timeless = |consumer: &Consumer| Consumer { updated_at: consumer.created_at, ..consumer.clone() };
    timeless(a) == timeless(b)
}

/// Why an installation cannot be pinned here.
fn pin_finding(draft: &ConsumerDraft, selector: &ToolSelector, installation: &Installation) -> Option<Finding> {
    if installation.entry != selector.entry {
        return Some(Finding::new(
            "credential",
            "the pinned installation belongs to another entry",
            "pin one of the same entry",
        ));
    }
    let allowed = match (installation.owner, &draft.scope) {
        (Owner::Organization, _) | (Owner::Team(_), Scope::Organization) => true,
        (Owner::User(owner), Scope::User(user)) => owner == *user,
        (Owner::User(_), Scope::Organization | Scope::Teams(_)) => false,
        (Owner::Team(team), Scope::Teams(teams)) => teams.contains(&team),
        (Owner::Team(team), Scope::User(_)) => draft.user_teams.contains(&team),
    };
    let remedy = "pin an installation of the organization or of a team in scope, or use `resolveAtCallTime`";
    (!allowed).then(|| {
        let reason =
            format!("an installation of {} cannot serve everybody who may use this consumer", installation.owner);
        Finding::new("credential", reason, remedy)
    })
}
