// Calls Procore with the token that tokenturn keeps in AWS Secrets Manager.
//
//   const acme = new Connection("production/acme");
//   const answer = await acme.fetch("/rest/v1.0/me");
//   console.log(answer.status, await answer.json());
//
// Needs Node 20 or later and @aws-sdk/client-secrets-manager, which Lambda's Node runtimes
// contain. Make one Connection when the program starts and share it.

import { GetSecretValueCommand, SecretsManagerClient } from "@aws-sdk/client-secrets-manager";

const ttl = 60_000; // milliseconds; a rotation may end a token long before expires_at

export interface Document {
  api_url: string;
  company_id: string;
  access_token: string;
  expires_at: string;
  epoch: number;
  generation: number;
}

export class Connection {
  #client = new SecretsManagerClient({});
  #secret: string;
  #known?: Document;
  #readAt = 0;
  #reading?: Promise<void>; // one at a time
  #inVain?: Document;

  constructor(name: string, prefix = "tokenturn") {
    this.#secret = `${prefix}/connection/${name}`;
  }

  /** Makes a request. After a 401, repeats it once with a newer token if the body can be sent again. */
  async fetch(path: string, init: RequestInit = {}): Promise<Response> {
    const document = await this.document();
    const answer = await send(document, path, init);
    if (answer.status !== 401) return answer;
    const newer = await this.#newer(document);
    if (!newer || init.body instanceof ReadableStream) return answer;
    await answer.body?.cancel();
    return send(newer, path, init);
  }

  /** Returns the secret's document. */
  async document(): Promise<Document> {
    if (!this.#known || Date.now() - this.#readAt > ttl) {
      await this.#read().catch((reason) => {
        if (!this.#known) throw reason; // in an outage, use the last token on
      });
    }
    return this.#known!;
  }

  // Looks for a newer token than the refused one, for a few seconds: it is published just after it is made.
  async #newer(refused: Document): Promise<Document | undefined> {
    const tries = this.#inVain === refused && Date.now() - this.#readAt < 10_000 ? 0 : 6;
    for (let i = 0; i < tries && !after(this.#known!, refused); i++) {
      await this.#read().catch(() => {}); // in an outage, the next read may work
    }
    if (after(this.#known!, refused)) return this.#known;
    this.#inVain = refused;
  }

  #read(): Promise<void> {
    this.#reading ??= this.#readSecret().finally(() => (this.#reading = undefined));
    return this.#reading;
  }

  async #readSecret(): Promise<void> {
    const wait = this.#readAt + 1_000 - Date.now(); // at most once a second
    if (wait > 0) await new Promise((resolve) => setTimeout(resolve, wait));
    this.#readAt = Date.now();
    const question = new GetSecretValueCommand({ SecretId: this.#secret, VersionStage: "AWSCURRENT" });
    const answer = await this.#client.send(question, { abortSignal: AbortSignal.timeout(5_000) }); // in an outage there may be no answer at all
    const document: Document = JSON.parse(answer.SecretString!);
    if (!this.#known || after(document, this.#known)) this.#known = document; // a read may be stale
  }
}

function after(a: Document, b: Document): boolean {
  return a.epoch > b.epoch || (a.epoch === b.epoch && a.generation > b.generation);
}

async function send(document: Document, path: string, init: RequestInit): Promise<Response> {
  if (!path.startsWith("/")) throw new TypeError("a path begins with a slash"); // with ".example.com" the host would be another
  const headers = new Headers(init.headers);
  headers.set("Authorization", `Bearer ${document.access_token}`);
  if (document.company_id && !headers.has("Procore-Company-Id")) headers.set("Procore-Company-Id", document.company_id);
  return fetch(document.api_url + path, { ...init, headers, redirect: "manual" });
}
