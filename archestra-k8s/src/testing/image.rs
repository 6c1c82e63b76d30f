//! `FakeImage`: what containers of an image do.

use super::exec::{FakeExec, Program};
use archestra_core::testing::ScriptedServer;
use std::time::Duration;

/// What the containers of an image do when the cluster runs them.
///
/// The same image serves over whatever its pod is made for: over the bridge when its command is an `archestra-bridge`, over
/// attach when its container has `stdin: true`, and over streamable HTTP otherwise.
///
/// ```
/// use archestra_core::testing::{Answer, ScriptedServer};
/// use archestra_k8s::testing::FakeImage;
///
/// let echo = ScriptedServer::new("echo").tool("echo", |arguments| Answer::text(arguments["text"].as_str().unwrap_or_default()));
/// // One image with several programs, as a base image has.
/// let base = FakeImage::command_not_found()
///     .command("echo-server", FakeImage::server(echo))
///     .command("broken-server", FakeImage::crashes(1, "Error: API_KEY is not set"));
/// # drop(base);
/// ```
#[derive(Debug, Clone)]
pub struct FakeImage {
    pub(super) behaviour: Behaviour,
    commands: Vec<(String, Self)>,
    /// What can be executed in its containers, by the first word of the command line.
    pub(super) programs: Vec<(String, Program)>,
    /// The user and the password without which it cannot be pulled.
    pub(super) credentials: Option<(String, String)>,
    pub(super) ready_after: Duration,
}

#[derive(Debug, Clone)]
pub(super) enum Behaviour {
    Serve(Box<ScriptedServer>),
    Exit { code: i32, stderr: String },
    PullError(String),
    NeverReady,
    CommandNotFound,
}

impl FakeImage {
    fn new(behaviour: Behaviour) -> Self {
        let (commands, programs) = (Vec::new(), Vec::new());
        Self { behaviour, commands, programs, credentials: None, ready_after: Duration::ZERO }
    }

    /// They are this MCP server.
    #[must_use]
    pub fn server(server: ScriptedServer) -> Self {
        Self::new(Behaviour::Serve(Box::new(server)))
    }

    /// They write these lines to stderr and end with this code, whenever they are started.
    #[must_use]
    pub fn crashes(code: i32, stderr: impl Into<String>) -> Self {
        Self::new(Behaviour::Exit { code, stderr: stderr.into() })
    }

    /// They do their work and end, as init containers do.
    #[must_use]
    pub fn completes() -> Self {
        Self::crashes(0, "")
    }

    /// There are none: the image cannot be pulled, for this reason.
    #[must_use]
    pub fn image_pull_error(reason: impl Into<String>) -> Self {
        Self::new(Behaviour::PullError(reason.into()))
    }

    /// They run, and their server never answers.
    #[must_use]
    pub fn never_ready() -> Self {
        Self::new(Behaviour::NeverReady)
    }

    /// They cannot be started, since the image has no such program.
    #[must_use]
    pub fn command_not_found() -> Self {
        Self::new(Behaviour::CommandNotFound)
    }

    /// The same, but containers with this word in their command line do something else.
    #[must_use]
    pub fn command(mut self, word: impl Into<String>, image: Self) -> Self {
        self.commands.push((word.into(), image));
        self
    }

    /// The same, with a program that can be executed in its containers while they run, as by `kubectl exec`. Whatever else is to
    /// be executed there is not found.
    ///
    /// ```
    /// use archestra_k8s::testing::{FakeExec, FakeImage};
    ///
    /// let image = FakeImage::never_ready()
    ///     .program("cat", |mut exec: FakeExec| async move {
    ///         while let Some(piece) = exec.read().await {
    ///             exec.write(piece).await;
    ///         }
    ///         0
    ///     })
    ///     .program("false", |_| async { 1 });
    /// # drop(image);
    /// ```
    #[must_use]
    pub fn program<F>(mut self, name: impl Into<String>, run: impl Fn(FakeExec) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = i32> + Send + 'static,
    {
        self.programs.push((name.into(), Program::new(run)));
        self
    }

    /// The same, but only who shows this user and password in an image pull secret can pull it.
    #[must_use]
    pub fn private(mut self, user: impl Into<String>, password: impl Into<String>) -> Self {
        self.credentials = Some((user.into(), password.into()));
        self
    }

    /// The same, but its server takes this long before it answers.
    #[must_use]
    pub fn ready_after(mut self, delay: Duration) -> Self {
        self.ready_after = delay;
        self
    }

    /// What a container with this command line does.
    pub(super) fn with_command_line(&self, words: &[String]) -> Self {
        let special = self.commands.iter().find(|(word, _)| words.contains(word)).map(|(_, image)| image.clone());
        let Some(mut special) = special else { return self.clone() };
        special.credentials.clone_from(&self.credentials);
        special.programs.extend(self.programs.iter().cloned());
        special
    }
}

impl From<ScriptedServer> for FakeImage {
    fn from(server: ScriptedServer) -> Self {
        Self::server(server)
    }
}
