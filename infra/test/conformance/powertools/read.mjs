// Prints the generation of the token in a secret, as Powertools for AWS Lambda has it, for each line of input:
// "kept" for what it may have kept for a minute, "forced" for a read that goes round its cache.
import { createInterface } from "node:readline";
import { getSecret } from "@aws-lambda-powertools/parameters/secrets";

const sdkOptions = { VersionStage: "AWSCURRENT" };
for await (const line of createInterface({ input: process.stdin })) {
  const { generation } = await getSecret(process.argv[2], { maxAge: 60, transform: "json", forceFetch: line === "forced", sdkOptions });
  console.log(generation);
}
