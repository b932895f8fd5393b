// Runs cdk-nag over the CloudFormation template that is named, and prints what it finds, as JSON: an array of
// {pack, rule, resource}.
import { readFileSync } from "node:fs";
import { App, Stack, Validations } from "aws-cdk-lib";
import { CfnInclude } from "aws-cdk-lib/cloudformation-include";
import { AwsSolutionsChecks, HIPAASecurityChecks, NIST80053R5Checks, ServerlessChecks } from "cdk-nag";

const app = new App({ outdir: "out", analyticsReporting: false });
new CfnInclude(new Stack(app, "stack"), "template", { templateFile: process.argv[2] });
for (const Pack of [AwsSolutionsChecks, HIPAASecurityChecks, NIST80053R5Checks, ServerlessChecks]) {
  Validations.of(app).addPlugins(new Pack(app));
}
try {
  app.synth();
} catch (findings) {
  if (!String(findings).includes("alidation")) throw findings; // findings make synth fail
}
const report = JSON.parse(readFileSync("out/validation-report.json", "utf8"));
console.log(JSON.stringify(report.pluginReports.flatMap((pack) => pack.violations.flatMap((violation) =>
  violation.violatingConstructs.map((construct) => ({
    pack: pack.pluginName, rule: violation.ruleName, resource: construct.constructPath.split("/").pop(),
  }))))));
