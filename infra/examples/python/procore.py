"""Calls Procore with the token that tokenturn keeps in AWS Secrets Manager.

    acme = Connection("production/acme")
    answer = acme.request("GET", "/rest/v1.0/me")
    print(answer.status, answer.json())

Needs boto3, which brings urllib3. Make one Connection when the program starts
and share it; threads may use it at once.
"""

import contextlib
import json
import threading
import time

import boto3
import urllib3
from botocore.config import Config

TTL = 60  # seconds; a rotation may end a token long before expires_at
BRIEF = Config(connect_timeout=2, read_timeout=3, retries={"total_max_attempts": 2})  # in an outage there may be no answer at all


class Connection:
    def __init__(self, name, prefix="tokenturn"):
        self._secret = f"{prefix}/connection/{name}"
        self._secrets = boto3.client("secretsmanager", config=BRIEF)
        self._http = urllib3.PoolManager()
        self._lock = threading.Lock()
        self._known, self._read_at, self._in_vain = None, 0, None

    def request(self, method, path, headers=None, **rest):
        """Makes a request. After a 401, repeats it once with a newer token if the body can be sent again."""
        document = self.document()
        answer = self._send(document, method, path, headers, rest)
        if answer.status == 401:
            newer = self._newer(document)
            if newer and isinstance(rest.get("body") or b"", (bytes, str)):  # a file or stream has been read
                answer = self._send(newer, method, path, headers, rest)
        return answer

    def _send(self, document, method, path, headers, rest):
        if not path.startswith("/"):  # with ".example.com" the host would be another
            raise ValueError("a path begins with a slash")
        own = {"Authorization": "Bearer " + document["access_token"]}
        if document["company_id"]:
            own["Procore-Company-Id"] = document["company_id"]
        return self._http.request(method, document["api_url"] + path, headers=own | (headers or {}), redirect=False, **rest)

    def document(self):
        """Returns the secret's document: access_token, api_url, company_id, expires_at and more."""
        if self._known and time.time() - self._read_at <= TTL:
            return self._known
        with self._lock:
            if self._known is None or time.time() - self._read_at > TTL:
                try:
                    self._read()
                except Exception:  # in an outage, use the last token on
                    if self._known is None:
                        raise
            return self._known

    def _newer(self, refused):
        """Looks for a newer token than the refused one, for a few seconds: it is published just after it is made."""
        with self._lock:
            if self._in_vain == _age(refused) and time.time() - self._read_at < 10:
                return None
            for _ in range(6):
                if _age(self._known) > _age(refused):
                    return self._known
                time.sleep(max(0, self._read_at + 1 - time.time()))  # at most once a second
                with contextlib.suppress(Exception):  # in an outage, the next read may work
                    self._read()
            if _age(self._known) > _age(refused):
                return self._known
            self._in_vain = _age(refused)
            return None

    def _read(self):
        self._read_at = time.time()
        answer = self._secrets.get_secret_value(SecretId=self._secret, VersionStage="AWSCURRENT")
        document = json.loads(answer["SecretString"])
        if self._known is None or _age(document) >= _age(self._known):  # a read may be stale
            self._known = document


def _age(document):
    return document["epoch"], document["generation"]
