//! Sealed manifests that no honest program wrote, and those that every later
//! one must read.

use artifacts::manifest::ManifestError;
use artifacts::seal::ManifestKey;

use super::*;

#[test]
fn a_manifest_that_lies_is_refused() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut place = Place::new("p");
    let path = place.save("checkpoint-1", &BTreeMap::from([("a", noise(1, 400)), ("b", noise(2, 400))]));
    let published = runtime.block_on(place.publish(&path));
    let objects = runtime.block_on(place.objects());
    let bytes = &objects.iter().find(|(key, _)| *key == published.manifest_key).unwrap().1;
    let text = String::from_utf8(bytes.clone()).unwrap();
    let name = published.manifest.needed().next().unwrap().name().to_string();
    let parse = |text: &str| Description::parse(text.as_bytes());
    assert!(matches!(parse(&text), Ok(Description::Sealed(_))));
    let at = text.find(",\"sealed\":\"").unwrap();
    let (clear, sealed) = text.split_at(at);
    for (what, lie) in [
        ("a field more", text.replacen("\"step\":1", "\"step\":1,\"more\":2", 1)),
        ("no kind", text.replacen("\"kind\":\"checkpoint\",", "", 1)),
        ("a pack that is none", text.replacen("/p0000", "/m0000", 1)),
        ("a place beyond any pack", text.replacen(",0,0,428,0,", ",0,99999999,428,0,", 1)),
        ("less than sealing adds", text.replacen(",428,0,", ",28,0,", 1)),
        ("a raw chunk of another size", text.replacen(",428,0,", ",427,0,", 1)),
        ("no Base64", format!("{clear},\"sealed\":\"?{}", &sealed[12..])),
        ("something after it", format!("{}, \"x\": 1}}", &text[..text.len() - 1])),
        ("space before the end", format!("{} }}", &text[..text.len() - 1])),
        ("escaped text", format!("{clear},\"sealed\":\"\\u0041{}", &sealed[12..])),
        ("no recipient", text.replacen("\"recipients\":[[", "\"recipients\":[],\"r\":[[", 1)),
    ] {
        assert_ne!(lie, text, "{what}");
        assert!(parse(&lie).is_err(), "{what}");
    }
    let newer = text.replacen("\"version\":3", "\"version\":4", 1);
    assert_eq!(parse(&newer), Err(ManifestError::Version(4)), "an upgrade, not damage");
    assert!(parse(&newer).unwrap_err().to_string().contains("upgrade"));
    let unknown = text.replacen(",428,0,", ",428,200,", 1);
    assert_eq!(parse(&unknown), Err(ManifestError::Codec(200)));
    // Names, kinds and steps are bound to what is sealed.
    for other in [
        text.replacen(&name, &"0".repeat(64), 1),
        text.replacen("\"step\":1", "\"step\":2", 1),
        text.replacen("\"checkpoint\"", "\"outputs\"", 1),
    ] {
        let Ok(Description::Sealed(lie)) = parse(&other) else { panic!("it parses") };
        let error = ring(7).open(&published.manifest_key, &lie).unwrap_err();
        assert!(error.to_string().contains("damaged"), "{error}");
    }
    let Ok(Description::Sealed(right)) = parse(&text) else { panic!("it parses") };
    assert!(!right.is_opened_by(&ManifestKey::from_bytes([1; 32])));
    for cut in 0..text.len() {
        assert!(parse(&text[..cut]).is_err());
    }
}

/// Seeds of the fuzzer: `BLESS_SEALED=1` writes them anew.
#[tokio::test]
async fn the_corpus_opens() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/sealed");
    if std::env::var_os("BLESS_SEALED").is_some() {
        fs::create_dir_all(&dir).unwrap();
        let many = files();
        let one = BTreeMap::from([("a", noise(1, 400)), ("b", b"text text ".repeat(40))]);
        for (name, files) in [("many", many), ("few", one), ("none", BTreeMap::from([("empty", Vec::new())]))]
        {
            let mut place = Place::new("p");
            let path = place.save("checkpoint", &files);
            let published = place.publish(&path).await;
            let size = place.store.size(&published.manifest_key).await.unwrap().unwrap();
            let bytes = place.store.get(&published.manifest_key, 0, size).await.unwrap();
            fs::write(dir.join(name), &bytes).unwrap();
            if name == "few" {
                let text = String::from_utf8(bytes).unwrap();
                fs::write(dir.join("step"), text.replacen("\"step\":1", "\"step\":2", 1)).unwrap();
            }
        }
    }
    let mut opened = 0;
    for entry in fs::read_dir(&dir).unwrap() {
        let bytes = fs::read(entry.unwrap().path()).unwrap();
        let Description::Sealed(sealed) = Description::parse(&bytes).unwrap() else { panic!("not sealed") };
        let at = "run/g0000000000000001/m00000000".parse().unwrap();
        opened += usize::from(ring(7).open(&at, &sealed).is_ok());
    }
    assert_eq!(opened, 3);
}

/// A store that was written once and is restored by every later version;
/// `BLESS_SEALED=1` writes it.
#[tokio::test]
async fn what_earlier_programs_sealed_is_restored() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    if std::env::var_os("BLESS_SEALED").is_some() {
        let mut place = Place::new("p");
        place.keys = KeySpace { scope: "sealed".into(), generation: 3, pack_seq: 1, manifest_seq: 1 };
        let path = place.save("golden", &files());
        place.publish(&path).await;
        for (key, bytes) in place.objects().await {
            let path = golden.join(key.as_str());
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
    }
    let at = ObjectKey::manifest("sealed", 3, 1).unwrap();
    let objects = [at.clone(), ObjectKey::pack("sealed", 3, 1).unwrap()]
        .map(|key| (key.clone(), fs::read(golden.join(key.as_str())).unwrap()));
    let store = store_of(&objects).await;
    let tree = open_manifest(&store, &at, None, &ring(8)).await.unwrap();
    let expected = files();
    let read = read_tree(&store, &tree, 1 << 30).await.unwrap();
    assert_eq!(read.len(), expected.len());
    for (name, bytes) in read {
        assert!(expected[name.as_str()] == bytes, "{name}");
    }
    assert_eq!(artifacts::pack::index(&objects[1].1).unwrap().len(), tree.needed().count());
}
