//! The first start, later starts, and a token that replaces another one.

use super::{ADMIN, AdminToken, Delivery, admin, clean_up};
use archestra_core::{
    identity::{IdentityLookup, IdentityQuery, IdentityStoreExt, PlainToken, Token, TokenHash, TokenOwner, User},
    testing::MemoryIdentity,
};
use std::{fs, os::unix::fs::PermissionsExt};

async fn tokens(store: &MemoryIdentity) -> Vec<Token> {
    store
        .list_all::<Token>(IdentityQuery::Tokens { owner: None })
        .await
        .unwrap()
        .into_iter()
        .map(|token| token.value)
        .collect()
}

async fn admin_user(store: &MemoryIdentity) -> User {
    store.find_one::<User>(IdentityLookup::UserByEmail(ADMIN.to_owned())).await.unwrap().unwrap().value
}

#[tokio::test]
async fn the_first_start_shows_a_token_and_the_second_keeps_it() {
    let store = MemoryIdentity::new();
    let AdminToken::Shown(token) = admin(&store, None, &Delivery::Terminal).await.unwrap() else { panic!("not shown") };
    assert!(matches!(admin(&store, None, &Delivery::Terminal).await.unwrap(), AdminToken::Kept));
    let user = admin_user(&store).await;
    assert_eq!(user.role.0, "admin");
    let stored = tokens(&store).await;
    assert_eq!(stored.len(), 1);
    assert_eq!((stored[0].hash, stored[0].owner, stored[0].bootstrap), (token.hash(), TokenOwner::User(user.id), true));
}

#[tokio::test]
async fn without_a_terminal_it_is_in_a_private_file_until_the_variable_replaces_it() {
    let path = std::env::temp_dir().join(format!("archestra-admin-token-{}", std::process::id()));
    let store = MemoryIdentity::new();
    let token = admin(&store, None, &Delivery::File(path.clone())).await.unwrap();
    assert!(matches!(token, AdminToken::InFile(at) if at == path));
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let written = fs::read_to_string(&path).unwrap();
    assert_eq!(tokens(&store).await[0].hash, TokenHash::of(written.trim()));

    let given = PlainToken::generate().unwrap();
    for _ in 0..2 {
        assert!(matches!(
            admin(&store, Some(&given), &Delivery::File(path.clone())).await.unwrap(),
            AdminToken::FromVariable
        ));
        assert_eq!(tokens(&store).await.iter().map(|token| token.hash).collect::<Vec<_>>(), [given.hash()]);
    }
    clean_up(&path, &given).unwrap();
    assert!(!path.exists());
    clean_up(&path, &given).unwrap();
}

#[tokio::test]
async fn a_token_of_somebody_else_is_refused() {
    let store = MemoryIdentity::new();
    let first = PlainToken::generate().unwrap();
    admin(&store, Some(&first), &Delivery::Terminal).await.unwrap();
    let mut token = tokens(&store).await.remove(0);
    token.bootstrap = false;
    let changes = archestra_core::identity::IdentityChanges::new().put(token, archestra_core::secret::Expect::Any);
    archestra_core::identity::IdentityStore::commit(&store, changes).await.unwrap();
    let refused = admin(&store, Some(&first), &Delivery::Terminal).await.unwrap_err();
    assert!(refused.text().contains("ARCHESTRA_ADMIN_TOKEN") && !refused.text().contains(first.expose()));
}
