use super::*;
use crate::surroundings::System;
use crate::testing::server_on;
use crate::user::{MASTERS, User};
use canopus_api::{Gvr, Target, value};
use canopus_store::{Limits, memory::MemoryStore};

fn config(providers: &str) -> String {
    let head = "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources: ";
    format!("{head}[{{resources: [secrets], providers: {providers}}}]")
}

const A: &str = "[aescbc: {keys: [{name: key1, secret: YWFhYWFhYWFhYWFhYWFhYQ==}]}, identity: {}]";
const BOTH: &str = "[secretbox: {keys: [{name: key2, secret: YmJiYmJiYmJiYmJiYmJiYmJiYmJiYmJiYmJiYmJiYmI=}]}, \
                     aescbc: {keys: [{name: key1, secret: YWFhYWFhYWFhYWFhYWFhYQ==}]}]";

#[tokio::test]
async fn secrets_are_not_to_be_read_from_the_store() {
    let raw: Arc<dyn Store> = Arc::new(MemoryStore::new(Limits::default()).unwrap());
    let encryption = Encryption::start(&config(A), Arc::new(System), true).await.unwrap();
    let server = server_on(Arc::new(EncryptedStore::new(raw.clone(), encryption.clone())), Default::default()).await;
    let admin = User::new("admin", &[MASTERS]);
    let target = |plural: &str| Target::new(&Gvr::new("", "v1", plural), "default", "s");
    let options = Default::default();
    let body = value!({"metadata": {"name": "s"}, "data": {"password": "aHVudGVyMg=="}});
    server.create(&admin, &target("secrets"), body.clone(), &options).await.unwrap();
    server.create(&admin, &target("configmaps"), body, &options).await.unwrap();
    let stored = async |key: &str| raw.get(key).await.unwrap().0.unwrap().value.clone();
    let key = "/registry/secrets/default/s";
    assert!(stored(key).await.starts_with(b"k8s:enc:aescbc:v1:key1:"));
    assert!(stored("/registry/configmaps/default/s").await.starts_with(b"{"), "others are as they were");
    let read = server.get(&target("secrets"), None).await.unwrap();
    assert_eq!(read.value()["data"]["password"].str(), "aHVudGVyMg==");
    // The cache has it from the watch.
    let cache = server.cache("", "v1", "secrets").unwrap();
    cache.reached(read.revision).await.unwrap();
    assert_eq!(cache.by_key("default/s").unwrap().value()["data"]["password"].str(), "aHVudGVyMg==");

    // Nothing to write, until the first key is another.
    let same = server.update(&admin, &target("secrets"), (*read.value()).clone(), &options).await.unwrap();
    assert_eq!(same.object.revision, read.revision);
    encryption.reload(&config(BOTH)).await.unwrap();
    assert!(encryption.reload("kind: none").await.is_err(), "and changes nothing");
    let again = server.update(&admin, &target("secrets"), (*read.value()).clone(), &options).await.unwrap();
    assert!(again.object.revision > read.revision);
    assert!(stored(key).await.starts_with(b"k8s:enc:secretbox:v1:key2:"));
    assert_eq!(server.get(&target("secrets"), None).await.unwrap().value()["data"]["password"].str(), "aHVudGVyMg==");
}

#[test]
fn whose_a_key_is() {
    for (key, of) in [
        ("/registry/secrets/a/b", Some(("", "secrets"))),
        ("/registry/deployments/a/b", Some(("apps", "deployments"))),
        ("/registry/services/specs/a/b", Some(("", "services"))),
        ("/registry/example.com/widgets/a/b", Some(("example.com", "widgets"))),
        ("/registry/", None),
        ("compact_rev_key", None),
    ] {
        assert_eq!(resource(key), of, "{key}");
    }
}
