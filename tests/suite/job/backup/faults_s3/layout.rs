//! What the settings for S3 make of an object, and what the manifest tells of it.

use aws_sdk_s3::types::{ChecksumMode, ServerSideEncryption};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::scene::Scene;

const MIB: usize = 1 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn the_manifest_tells_the_parts_and_the_checksum_that_the_store_shows() {
    let mut scene = Scene::holding(22 << 20).await;
    scene.set("BACKUP_S3_SSE", "AES256");
    scene.set("BACKUP_S3_STORAGE_CLASS", "STANDARD_IA");
    let ended = scene.run();
    let manifest = scene.assert_one_backup(&scene.primary, &ended).await;

    let place = &scene.primary;
    let key = place
        .keys()
        .await
        .into_iter()
        .find(|key| key.ends_with(".dump"))
        .unwrap();
    let bytes = place.bucket.get(&key).await;
    let parts: Vec<&[u8]> = bytes.chunks(5 * MIB).collect();
    assert_eq!(parts.len(), 5);
    let recorded: Vec<_> = (1..)
        .zip(&parts)
        .map(|(number, part)| {
            let checksum = BASE64.encode(Sha256::digest(part));
            json!({"number": number, "bytes": part.len(), "checksum_sha256": checksum})
        })
        .collect();
    assert_eq!(manifest["parts"], json!(recorded));

    let mut composite = Sha256::new();
    for part in manifest["parts"].as_array().unwrap() {
        composite.update(BASE64.decode(part["checksum_sha256"].as_str().unwrap()).unwrap());
    }
    let composite = format!("{}-5", BASE64.encode(composite.finalize()));
    assert_eq!(
        manifest["store_checksum"],
        json!({"algorithm": "SHA256", "kind": "COMPOSITE", "value": composite})
    );

    let head = || place.bucket.client.head_object().bucket(&place.bucket.name);
    let whole = head()
        .key(&key)
        .checksum_mode(ChecksumMode::Enabled)
        .send()
        .await
        .unwrap();
    assert_eq!(whole.checksum_sha256(), Some(composite.as_str()));
    for (number, part) in (1..).zip(&parts) {
        let seen = head().key(&key).part_number(number).send().await.unwrap();
        assert_eq!(seen.content_length(), i64::try_from(part.len()).ok(), "part {number}");
        assert_eq!(seen.parts_count(), Some(5));
    }
    assert_eq!(
        whole.storage_class().map(ToString::to_string).as_deref(),
        Some("STANDARD_IA")
    );
    for key in place.keys().await {
        let seen = head().key(&key).send().await.unwrap();
        assert_eq!(
            seen.server_side_encryption(),
            Some(&ServerSideEncryption::Aes256),
            "{key}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_archive_is_one_object_with_the_checksum_of_its_bytes() {
    let scene = Scene::small().await;
    let ended = scene.run();
    let manifest = scene.assert_one_backup(&scene.primary, &ended).await;
    assert!(manifest["parts"].as_array().is_none_or(Vec::is_empty));
    let sha256 = hex::decode(manifest["files"]["dump"]["sha256"].as_str().unwrap()).unwrap();
    assert_eq!(
        manifest["store_checksum"],
        json!({"algorithm": "SHA256", "kind": "FULL_OBJECT", "value": BASE64.encode(sha256)})
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_that_does_not_fit_the_providers_parts_is_refused_with_a_way_out() {
    let mut scene = Scene::three_parts().await;
    scene.set("BACKUP_S3_MAX_PARTS", "1");
    scene
        .run()
        .store_failed("does not fit 1 part in", "BACKUP_S3_MAX_PARTS");
    scene.assert_no_trace().await;

    scene.set("BACKUP_S3_PART_SIZE", "16MiB");
    let ended = scene.run();
    scene.assert_one_backup(&scene.primary, &ended).await;
}
