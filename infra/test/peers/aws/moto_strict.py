#!/usr/bin/env python3
"""moto_server made fit to test a rotation protocol against.

Stock moto 5.2.1 answers two conditional writers with "you won", lets cancelled
transactions undo other clients' writes, and gets Secrets Manager's version
rules wrong. This wrapper

  * runs one request at a time, so every API call is atomic as on AWS;
  * replaces the Secrets Manager version rules by the documented ones;
  * repairs the DynamoDB and KMS gaps the protocol can meet;
  * says "not yet" where AWS works on after its answer: restores, backups and
    updates of tables;
  * can misbehave on request: --stale-ms (labels read late, as "eventually
    consistent" allows), --lose P (a write is done, its answer is not),
    --refuse P (throttled, nothing done), all from one --seed.

Loopback only. --stock switches the repairs off, --no-lock the lock. Faults
strike the services that speak JSON (all that are used here but SNS).
GET /_strict/log answers the last 5,000 calls as JSON lines; POST /_strict/faults
with {"lose":0.1,"refuse":0,"stale_ms":0,"only":"PutSecretValue"} changes the
faults. Prints `listening on URL` once it does; SIGTERM or SIGINT stops it, and
with --exit-on-stdin-eof the end of its standard input, so that it never
outlives the process that started it.
"""
from __future__ import annotations

import argparse
import collections
import copy
import io
import json
import os
import random
import re
import signal
import socket
import sys
import threading
import time
import zlib
from decimal import Decimal, InvalidOperation

from werkzeug.serving import WSGIRequestHandler, make_server

from moto.core.exceptions import JsonRESTError
from moto.dynamodb import comparisons
from moto.dynamodb.exceptions import MockValidationException, ResourceInUseException
from moto.dynamodb.models import DynamoDBBackend
from moto.dynamodb.parsing.reserved_keywords import ReservedKeywords
from moto.dynamodb.responses import DynamoHandler
from moto.kms import exceptions as kmsx
from moto.kms.models import KmsBackend
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from moto.secretsmanager import exceptions as smx
from moto.secretsmanager import models as smm
from moto.secretsmanager import responses as smr

CUR, PREV, PEND = "AWSCURRENT", "AWSPREVIOUS", "AWSPENDING"
MARKED = "You can't perform this operation on the secret because it was marked for deletion."
FAULTS = {"lose": 0.0, "refuse": 0.0, "stale_ms": 0, "only": ""}
WRITES = re.compile(r"\.(Put|Update|Create|Delete|Send|BatchWrite|TransactWrite|Restore|Tag|Untag|Rotate)")
OPTS = argparse.Namespace(drop_pending=False)


# ---------------------------------------------------------------- Secrets Manager
def repair_secrets() -> None:
    B, R = smm.SecretsManagerBackend, smr.SecretsManagerResponse

    for c in (smx.ResourceNotFoundException, smx.SecretNotFoundException,
              smx.SecretHasNoValueException, smx.SecretStageVersionMismatchException):
        def init(self, *a, _old=c.__init__, **k):
            _old(self, *a, **k)
            self.code = 400  # AWS answers 400, moto 404
        c.__init__ = init

    def labelled(secret, stage):
        return next((v for v, d in secret.versions.items() if stage in d["version_stages"]), None)

    def note(secret):  # label history, for --stale-ms
        h = secret.__dict__.setdefault("_history", collections.deque(maxlen=200))
        h.append((time.monotonic(), {s: v for v, d in secret.versions.items() for s in d["version_stages"]}))

    def find(self, secret_id, allow_deleted=False):
        if not self._is_valid_identifier(secret_id):
            raise smx.SecretNotFoundException()
        s = self.secrets[secret_id]
        if isinstance(s, smm.ReplicaSecret):
            raise smx.OperationNotPermittedOnReplica
        if s.is_deleted() and not allow_deleted:
            raise smx.InvalidRequestException(MARKED)
        return s

    def attach(secret, version_id, stages):
        for stage in stages:
            holder = labelled(secret, stage)
            if holder == version_id:
                continue
            if holder:
                secret.versions[holder]["version_stages"].remove(stage)
                if stage == CUR:
                    was = labelled(secret, PREV)
                    if was:
                        secret.versions[was]["version_stages"].remove(PREV)
                    secret.versions[holder]["version_stages"].append(PREV)
            secret.versions[version_id]["version_stages"].append(stage)
        st = secret.versions[version_id]["version_stages"]
        if CUR in st:
            secret.default_version_id = version_id
            if PREV in st:
                st.remove(PREV)
        note(secret)

    def size_ok(text, binary):
        for what, v in (("secretString", text), ("secretBinary", binary)):
            n = 0 if v is None else (len(v.encode()) if what == "secretString" else len(v) * 3 // 4)
            if n > 65536 + (2 if what == "secretBinary" else 0):
                raise smx.ValidationException(f"1 validation error detected: Value at '{what}' failed to satisfy "
                                              "constraint: Member must have length less than or equal to 65536")

    def put_secret_value(self, secret_id, secret_string, secret_binary, client_request_token, version_stages):
        secret = find(self, secret_id)
        size_ok(secret_string, secret_binary)
        token = self._from_client_request_token(client_request_token)
        have = secret.versions.get(token)
        if have and ("secret_string" in have or "secret_binary" in have):
            if have.get("secret_string") == secret_string and have.get("secret_binary") == secret_binary:
                return secret.to_short_dict(include_version_stages=True, version_id=token)  # succeeds, does nothing
            raise smx.ResourceExistsException(
                f"You can't use ClientRequestToken {token} because that value is already in use for a version of secret {secret.arn}.")
        live = [d for d in secret.versions.values() if time.time() - d["createdate"] < 86400]
        if len(live) >= 100 and not have:
            raise JsonRESTError("LimitExceededException", "The secret already has the maximum number of versions.")
        v = {"createdate": time.time(), "version_id": token, "version_stages": have["version_stages"] if have else []}
        if secret_string is not None:
            v["secret_string"] = secret_string
        if secret_binary is not None:
            v["secret_binary"] = secret_binary
        stages = list(version_stages or [CUR])
        if not any(CUR in d["version_stages"] for d in secret.versions.values()) and CUR not in stages:
            stages.append(CUR)
        secret.versions[token] = v
        secret.last_changed_date = int(time.time())
        attach(secret, token, stages)
        return secret.to_short_dict(include_version_stages=True, version_id=token)

    def update_secret_version_stage(self, secret_id, version_stage, remove_from_version_id, move_to_version_id):
        secret = find(self, secret_id)
        bad = smx.InvalidParameterException
        holder = labelled(secret, version_stage)
        if not remove_from_version_id and not move_to_version_id:
            raise bad("You must provide at least one of MoveToVersionId and RemoveFromVersionId.")
        for v in (remove_from_version_id, move_to_version_id):
            if v and v not in secret.versions:
                raise smx.ResourceNotFoundException(f"Secrets Manager can't find the specified secret value for VersionId: {v}")
        if remove_from_version_id and holder != remove_from_version_id:
            raise bad(f"Staging label {version_stage} is not attached to version {remove_from_version_id}.")
        if holder and not remove_from_version_id and holder != move_to_version_id:
            raise bad(f"The parameter RemoveFromVersionId can't be empty. Staging label {version_stage} is currently attached to version "
                      f"{holder}, so you must explicitly reference that version in RemoveFromVersionId.")
        if move_to_version_id:
            attach(secret, move_to_version_id, [version_stage])
            if version_stage == CUR and OPTS.drop_pending:
                st = secret.versions[move_to_version_id]["version_stages"]
                if PEND in st:
                    st.remove(PEND)
        elif version_stage == CUR:
            raise bad("You can't remove the staging label AWSCURRENT without moving it to another version.")
        else:
            secret.versions[holder]["version_stages"].remove(version_stage)
        note(secret)
        return secret.arn, secret.name

    old_get = B.get_secret_value

    def get_secret_value(self, secret_id, version_id, version_stage):
        secret = find(self, secret_id) if self._is_valid_identifier(secret_id) and not isinstance(
            self.secrets[secret_id], smm.ReplicaSecret) else None
        if secret is None:
            return old_get(self, secret_id, version_id, version_stage)
        if not version_id:
            stage = version_stage or CUR
            vid = labelled(secret, stage)
            if FAULTS["stale_ms"]:
                t = time.monotonic() - FAULTS["stale_ms"] / 1000
                past = [m for at, m in secret.__dict__.get("_history", ()) if at <= t]
                if past:
                    vid = past[-1].get(stage)
            if not vid:
                raise smx.ResourceNotFoundException(f"Secrets Manager can't find the specified secret value for staging label: {stage}")
            version_id, version_stage = vid, None
        return old_get(self, secret_id, version_id, version_stage)

    old_create = B.create_secret

    def create_secret(self, name, secret_string, secret_binary, *a, **k):
        size_ok(secret_string, secret_binary)
        if name in self.secrets and not isinstance(self.secrets[name], smm.ReplicaSecret) and self.secrets[name].is_deleted():
            raise smx.InvalidRequestException("You can't create this secret because a secret with this name is already scheduled for deletion.")
        out = old_create(self, name, secret_string, secret_binary, *a, **k)
        note(self.secrets[name])
        return out

    def form(self):
        return {k: v["version_stages"] for k, v in self.versions.items() if v["version_stages"]}

    def list_secret_version_ids(self):
        s = find(self.backend, self._get_param("SecretId", if_none=""), allow_deleted=True)
        every = self._get_param("IncludeDeprecated")
        out = []
        for vid, v in s.versions.items():
            if v["version_stages"] or every:
                e = {"CreatedDate": v["createdate"], "VersionId": vid}
                if v["version_stages"]:
                    e["VersionStages"] = v["version_stages"]
                out.append(e)
        return json.dumps({"ARN": s.arn, "Name": s.name, "Versions": out})

    def bound(resp, field, hi):
        v = resp._get_param(field)
        if v is not None and not 1 <= (len(v) if isinstance(v, list) else int(v)) <= hi:
            raise smx.ValidationException(f"1 validation error detected: Value at '{field}' failed to satisfy constraint: at most {hi}")

    def limited(old, field, hi):
        def f(self):
            bound(self, field, hi)
            return old(self)
        return f

    B.put_secret_value, B.update_secret_version_stage = put_secret_value, update_secret_version_stage
    B.get_secret_value, B.create_secret = get_secret_value, create_secret
    smm.FakeSecret._form_version_ids_to_stages = form
    R.list_secret_version_ids = list_secret_version_ids
    R.list_secrets = limited(R.list_secrets, "MaxResults", 100)
    R.batch_get_secret_value = limited(R.batch_get_secret_value, "SecretIdList", 20)

    for name in ("update_secret", "tag_resource", "untag_resource"):  # refused once marked for deletion
        def g(self, secret_id, *a, _old=getattr(B, name), **k):
            if secret_id in self.secrets and not isinstance(self.secrets[secret_id], smm.ReplicaSecret):
                find(self, secret_id)
            return _old(self, secret_id, *a, **k)
        setattr(B, name, g)


# ---------------------------------------------------------------- DynamoDB
def repair_dynamodb() -> None:
    for name in ("OpLessThan", "OpGreaterThan", "OpLessThanOrEqual", "OpGreaterThanOrEqual"):
        c = getattr(comparisons, name)

        def expr(self, item, _old=c.expr):
            try:
                return _old(self, item)
            except TypeError:  # different types compare as false
                return False
        c.expr = expr

    H = DynamoHandler

    def walk(v):
        if isinstance(v, dict):
            if len(v) == 1:
                (k, x), = v.items()
                if k == "N":
                    try:
                        d = Decimal(str(x))
                        ok = d.is_finite()
                    except InvalidOperation:
                        ok = False
                    if not ok:
                        raise MockValidationException(f"The parameter cannot be converted to a numeric value: {x}")
                    if len("".join(map(str, d.as_tuple().digits)).strip("0")) > 38:
                        raise MockValidationException("Attempting to store more than 38 significant digits in a Number")
                if k in ("SS", "NS", "BS") and x == []:
                    raise MockValidationException("One or more parameter values were invalid: An string set  may not be empty")
            for x in v.values():
                walk(x)
        elif isinstance(v, list):
            for x in v:
                walk(x)

    old_call = H.call_action

    def call_action(self):
        try:
            p = getattr(self, "params", None) or {}
            for k in ("Item", "Key", "ExpressionAttributeValues", "TransactItems", "RequestItems"):
                if k in p:
                    walk(p[k])
            kce = p.get("KeyConditionExpression")
            if kce:
                words = set(ReservedKeywords.get_reserved_keywords())
                for w in re.findall(r"(?<![#:\w.])[A-Za-z_]\w*", kce):
                    if w.upper() in words and w.upper() not in ("AND", "BETWEEN"):
                        raise MockValidationException("Invalid KeyConditionExpression: Attribute name is a reserved keyword; reserved keyword: " + w)
        except MockValidationException as e:
            return e.code, {"Content-Type": "application/x-amz-json-1.0"}, json.dumps({"__type": e.error_type, "message": e.message})
        return old_call(self)
    H.call_action = call_action

    old_batch = H.batch_write_item

    def batch_write_item(self):
        if sum(len(v) for v in self.body["RequestItems"].values()) > 25:
            raise MockValidationException("Too many items requested for the BatchWriteItem call")
        return old_batch(self)
    H.batch_write_item = batch_write_item

    old_tx = H.transact_write_items

    def transact_write_items(self):
        token = self.body.get("ClientRequestToken")
        seen = self.dynamodb_backend.__dict__.setdefault("_tx_tokens", {})
        asked = json.dumps(self.body["TransactItems"], sort_keys=True, default=str)
        if token and token in seen and time.monotonic() - seen[token][1] < 600:
            if seen[token][0] != asked:
                raise JsonRESTError("IdempotentParameterMismatchException", "The request uses the same client token as a previous, but non-identical request.")
            return seen[token][2]
        out = old_tx(self)
        if token:
            seen[token] = (asked, time.monotonic(), out)
        return out
    H.transact_write_items = transact_write_items

    old_ttl = DynamoDBBackend.update_time_to_live

    def update_time_to_live(self, table_name, ttl_spec):
        table = self.get_table(table_name)
        if bool(ttl_spec.get("Enabled")) == (table.ttl.get("TimeToLiveStatus") == "ENABLED"):
            raise MockValidationException("TimeToLive is already " + ("enabled" if ttl_spec.get("Enabled") else "disabled"))
        return old_ttl(self, table_name, ttl_spec)
    DynamoDBBackend.update_time_to_live = update_time_to_live
    take_time(DynamoDBBackend)


def take_time(B) -> None:
    """What AWS does in the background after it has answered is done here once somebody has asked after it, and
    what a restored table cannot do yet is refused once: no clock, so that a program that waits gets on at once."""
    old = argparse.Namespace(**{name: getattr(B, name) for name in (
        "describe_table", "update_table", "delete_table", "create_backup", "describe_backup",
        "restore_table_from_backup", "restore_table_to_point_in_time", "update_continuous_backups")})

    def restored(table):
        table._states, table._no_backups_yet = ["CREATING"] * 3, True
        return table

    def describe_table(self, name):
        answer, states = old.describe_table(self, name), self.get_table(name).__dict__.get("_states")
        if states:
            answer["Table"]["TableStatus"] = states.pop()
        return answer

    def idle(self, name):
        table = self.get_table(name)
        if table.__dict__.get("_states"):
            raise ResourceInUseException(f"Attempt to change a resource which is still in use: Table is being updated: {name}")
        if any(b.status == "CREATING" and b.table.table_arn == table.table_arn for b in self.backups.values()):
            raise ResourceInUseException(f"Attempt to change a resource which is still in use: Table is being backed up: {name}")

    def update_table(self, name, *a, **k):
        idle(self, name)
        table = old.update_table(self, name, *a, **k)
        table._states = ["UPDATING"]
        return table

    def delete_table(self, name):
        idle(self, name)
        return old.delete_table(self, name)

    def backups_possible(self, name):
        if self.get_table(name).__dict__.pop("_no_backups_yet", False):
            raise JsonRESTError("ContinuousBackupsUnavailableException", f"Backups are being enabled for the table: {name}. Please retry later")

    def create_backup(self, table_name, backup_name):
        backups_possible(self, table_name)
        backup = old.create_backup(self, table_name, backup_name)
        backup.status = "CREATING"
        return backup

    def describe_backup(self, backup_arn):
        backup = old.describe_backup(self, backup_arn)
        seen, backup.status = copy.copy(backup), "AVAILABLE"
        return seen

    def restore_table_from_backup(self, target_table_name, backup_arn):
        if self.get_backup(backup_arn).status == "CREATING":
            raise JsonRESTError("BackupInUseException", "Backup is being created")
        return restored(old.restore_table_from_backup(self, target_table_name, backup_arn))

    def restore_table_to_point_in_time(self, *a, **k):
        return restored(old.restore_table_to_point_in_time(self, *a, **k))

    def update_continuous_backups(self, table_name, spec):
        backups_possible(self, table_name)
        return old.update_continuous_backups(self, table_name, spec)

    for name in vars(old):
        setattr(B, name, locals()[name])


# ---------------------------------------------------------------- KMS
def repair_kms() -> None:
    old = KmsBackend.decrypt

    def decrypt(self, ciphertext_blob, encryption_context, key_id=None):
        try:
            plaintext, arn = old(self, ciphertext_blob, encryption_context)
        except kmsx.AccessDeniedException:  # moto writes the key's id in clear: an unknown one is a changed byte
            raise kmsx.InvalidCiphertextException()
        if key_id is not None and self.any_id_to_key_id(key_id) != self.any_id_to_key_id(arn):
            raise JsonRESTError("IncorrectKeyException", "The key ID in the request does not identify a CMK that can perform this operation.")
        return plaintext, arn
    KmsBackend.decrypt = decrypt

    for name in ("cancel_key_deletion", "disable_key", "enable_key", "schedule_key_deletion"):  # take an ARN as well
        def by_id(self, key_id, *a, _old=getattr(KmsBackend, name), **k):
            return _old(self, self.get_key_id(key_id), *a, **k)
        setattr(KmsBackend, name, by_id)


# ---------------------------------------------------------------- server
class Dropped(Exception):
    """Stands for a connection cut after the work was done."""


class Handler(WSGIRequestHandler):
    """werkzeug's handler closes every connection; this one keeps them and sends each answer in one piece."""

    disable_nagle_algorithm = True

    def log_request(self, *a, **k):
        pass

    def run_wsgi(self):
        if self.headers.get("Expect", "").lower().strip() == "100-continue":
            self.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        got = {}

        def start(status, headers, exc=None):
            got.update(s=status, h=headers)
        try:
            data = b"".join(self.server.app(self.make_environ(), start))
        except Dropped:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        except Exception as e:  # a moto bug: say so as a 500
            got.update(s="500 Internal Server Error", h=[])
            data = f"{type(e).__name__}: {e}".encode()
        head = [f"HTTP/1.1 {got['s']}"]
        head += [f"{k}: {v}" for k, v in got["h"] if k.lower() not in ("content-length", "connection", "transfer-encoding")]
        head += [f"Content-Length: {len(data)}", "", ""]
        body = b"" if self.command == "HEAD" else data
        self.wfile.write("\r\n".join(head).encode("latin-1") + body)


class Gate:
    def __init__(self, app, lock, seed):
        self.app, self.lock, self.rnd = app, lock, random.Random(seed)
        self.log = collections.deque(maxlen=5000)
        self.n = 0

    def answer(self, start, status, doc, ctype="application/x-amz-json-1.1"):
        b = doc if isinstance(doc, bytes) else json.dumps(doc).encode()
        # DynamoDB sends this sum with every answer, and its clients compare it.
        start(status, [("Content-Type", ctype), ("Content-Length", str(len(b))), ("x-amz-crc32", str(zlib.crc32(b)))])
        return [b]

    def __call__(self, env, start):
        src = env["wsgi.input"]
        body = src.read() if env.get("wsgi.input_terminated") else src.read(int(env.get("CONTENT_LENGTH") or 0))
        env.pop("HTTP_TRANSFER_ENCODING", None)
        env["CONTENT_LENGTH"] = str(len(body))
        env["wsgi.input"] = io.BytesIO(body)
        path = env.get("PATH_INFO", "")
        if path == "/_strict/log":
            return self.answer(start, "200 OK", "".join(json.dumps(x) + "\n" for x in list(self.log)).encode(), "application/jsonl")
        if path == "/_strict/faults":
            asked = json.loads(body or b"{}")
            if asked.keys() - FAULTS.keys():  # a misspelt fault would be a test that tests nothing
                return self.answer(start, "400 Bad Request", {"known": list(FAULTS)})
            FAULTS.update(asked)
            return self.answer(start, "200 OK", FAULTS)
        if path == "/_strict/health":
            return self.answer(start, "200 OK", {"ok": True})
        target = env.get("HTTP_X_AMZ_TARGET", "")
        op = target.rsplit(".", 1)[-1]
        if not op and env.get("CONTENT_TYPE", "").startswith("application/x-www-form-urlencoded"):
            m = re.search(rb"(?:^|&)Action=(\w+)", body)
            op = m.group(1).decode() if m else ""
        with self.lock:
            self.n += 1
            dice, fault = self.rnd.random(), ""
            if target and (not FAULTS["only"] or FAULTS["only"] == op):
                if dice < FAULTS["refuse"]:
                    fault = "refuse"
                elif dice < FAULTS["refuse"] + FAULTS["lose"] and WRITES.search(target):
                    fault = "lose"
            if fault == "refuse":
                self.log.append({"n": self.n, **caller(env), "op": op, "status": "400", "fault": fault})
                return self.answer(start, "400 Bad Request", {"__type": "ThrottlingException", "message": "Rate exceeded"})
            got = {}

            def hold(status, headers, exc=None):
                got["s"], got["h"] = status, headers
            out = self.app(env, hold)
            data = b"".join(out)
            if hasattr(out, "close"):
                out.close()
            if fault == "lose" and not got["s"].startswith("200"):
                fault = ""
            self.log.append({"n": self.n, **caller(env), "op": op or env.get("REQUEST_METHOD", "") + " " + path, "status": got["s"][:3],
                             **({"fault": fault} if fault else {})})
        if fault == "lose":
            raise Dropped
        start(got["s"], got["h"])
        return [data]


def caller(env):
    """Access key and service of the request's SigV4 credential scope."""
    m = re.search(r"Credential=([^/]+)/\d+/[^/]+/([^/]+)/aws4_request", env.get("HTTP_AUTHORIZATION", ""))
    return {"who": m.group(1), "svc": m.group(2)} if m else {}


class NoLock:
    def __enter__(self):
        return self

    def __exit__(self, *a):
        return False


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("-p", "--port", type=int, default=5005, help="0 picks a free one")
    p.add_argument("-H", "--host", default="127.0.0.1")
    p.add_argument("--stock", action="store_true", help="moto's own rules")
    p.add_argument("--no-lock", action="store_true")
    p.add_argument("--drop-pending", action="store_true", help="moving AWSCURRENT takes AWSPENDING off the same version (AWS's guide says so, recordings of AWS differ)")
    p.add_argument("--stale-ms", type=int, default=0)
    p.add_argument("--lose", type=float, default=0)
    p.add_argument("--refuse", type=float, default=0)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--exit-on-stdin-eof", action="store_true", help="stop when the parent closes our standard input")
    a = p.parse_args()
    if not a.host.startswith("127."):
        sys.exit("loopback only")
    OPTS.drop_pending = a.drop_pending
    FAULTS.update(lose=a.lose, refuse=a.refuse, stale_ms=a.stale_ms)
    if not a.stock:
        repair_secrets()
        repair_dynamodb()
        repair_kms()
    for s in (signal.SIGINT, signal.SIGTERM):
        signal.signal(s, lambda *_: os._exit(0))
    app = Gate(DomainDispatcherApplication(create_backend_app), NoLock() if a.no_lock else threading.Lock(), a.seed)
    server = make_server(a.host, a.port, app, threaded=True, request_handler=Handler)
    os.environ["MOTO_PORT"] = str(server.port)
    if a.exit_on_stdin_eof:
        threading.Thread(target=lambda: (sys.stdin.buffer.read(), os._exit(0)), daemon=True).start()
    print(f"listening on http://{a.host}:{server.port}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
