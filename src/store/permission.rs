//! The permission that each request to S3 needs, so that the error of a refusal can name the statement that the
//! policy lacks.

use aws_sdk_s3::operation::abort_multipart_upload::AbortMultipartUploadError;
use aws_sdk_s3::operation::complete_multipart_upload::CompleteMultipartUploadError;
use aws_sdk_s3::operation::create_multipart_upload::CreateMultipartUploadError;
use aws_sdk_s3::operation::delete_bucket_lifecycle::DeleteBucketLifecycleError;
use aws_sdk_s3::operation::delete_object::DeleteObjectError;
use aws_sdk_s3::operation::get_bucket_lifecycle_configuration::GetBucketLifecycleConfigurationError;
use aws_sdk_s3::operation::get_object::GetObjectError;
use aws_sdk_s3::operation::get_object_tagging::GetObjectTaggingError;
use aws_sdk_s3::operation::head_object::HeadObjectError;
use aws_sdk_s3::operation::list_multipart_uploads::ListMultipartUploadsError;
use aws_sdk_s3::operation::list_objects_v2::ListObjectsV2Error;
use aws_sdk_s3::operation::put_bucket_lifecycle_configuration::PutBucketLifecycleConfigurationError;
use aws_sdk_s3::operation::put_object::PutObjectError;
use aws_sdk_s3::operation::put_object_tagging::PutObjectTaggingError;
use aws_sdk_s3::operation::upload_part::UploadPartError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;

/// The resource of a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    Bucket,
    Objects,
}

/// The error of a request, with the permission that the request needs.
pub trait Needs: ProvideErrorMetadata + std::error::Error {
    /// IAM's name, which differs from the request's.
    const ACTION: &'static str;
    const SCOPE: Scope;
}

macro_rules! needs {
    ($($error:ty: $scope:ident $action:literal,)*) => {
        $(impl Needs for $error {
            const ACTION: &'static str = $action;
            const SCOPE: Scope = Scope::$scope;
        })*
    };
}

needs! {
    PutObjectError: Objects "s3:PutObject",
    CreateMultipartUploadError: Objects "s3:PutObject",
    UploadPartError: Objects "s3:PutObject",
    CompleteMultipartUploadError: Objects "s3:PutObject",
    AbortMultipartUploadError: Objects "s3:AbortMultipartUpload",
    GetObjectError: Objects "s3:GetObject",
    HeadObjectError: Objects "s3:GetObject",
    GetObjectTaggingError: Objects "s3:GetObjectTagging",
    PutObjectTaggingError: Objects "s3:PutObjectTagging",
    DeleteObjectError: Objects "s3:DeleteObject",
    ListObjectsV2Error: Bucket "s3:ListBucket",
    ListMultipartUploadsError: Bucket "s3:ListBucketMultipartUploads",
    GetBucketLifecycleConfigurationError: Bucket "s3:GetLifecycleConfiguration",
    PutBucketLifecycleConfigurationError: Bucket "s3:PutLifecycleConfiguration",
    DeleteBucketLifecycleError: Bucket "s3:PutLifecycleConfiguration",
}
