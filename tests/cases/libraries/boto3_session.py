"""boto3: the default session and a client"""
import boto3

EDIT = 0
keys = {"aws_access_key_id": f"edit{EDIT}", "aws_secret_access_key": "secret"}
boto3.setup_default_session(region_name="eu-north-1", **keys)
queue = boto3.client("s3")

def answer():
    url = queue.generate_presigned_url("get_object", {"Bucket": "shop", "Key": "page"})
    credentials = boto3.DEFAULT_SESSION.get_credentials()
    return [int(url.partition("edit")[2].partition("%")[0].partition("&")[0]), int(credentials.access_key[4:])]
