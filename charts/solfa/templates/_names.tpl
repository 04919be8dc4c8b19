{{/* Names, labels and other parts that several objects share. */}}

{{- define "solfa.fullname" -}}
{{- if contains "solfa" .Release.Name }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}{{ else }}{{ printf "%s-solfa" .Release.Name | trunc 50 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "solfa.selector" -}}
app.kubernetes.io/name: solfa
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "solfa.labels" -}}
{{ include "solfa.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{/* What the launcher puts on every pod that it starts for this release. */}}
{{- define "solfa.trainerSelector" -}}
app.kubernetes.io/name: solfa-trainer
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* Not the service's: sweep.yaml waits for pods with those labels to be gone. */}}
{{- define "solfa.sweepLabels" -}}
app.kubernetes.io/name: solfa-sweep
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "solfa.sweepHook" -}}
helm.sh/hook: post-delete
helm.sh/hook-weight: {{ . | quote }}
helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
{{- end }}

{{/* (dict "root" $ "image" .Values.images.control) */}}
{{- define "solfa.image" -}}
{{- with .root.Values.images.registry }}{{ trimSuffix "/" . }}/{{ end }}{{ .image.repository }}
{{- if .image.digest }}@{{ .image.digest }}{{ else }}:{{ .image.tag | default .root.Chart.AppVersion }}{{ end }}
{{- end }}

{{- define "solfa.pullSecrets" -}}
{{- with .Values.images.pullSecrets -}}
imagePullSecrets:
{{- range . }}
  - name: {{ . }}
{{- end }}
{{- end }}
{{- end }}

{{- define "solfa.serviceAccount" -}}
{{- .Values.serviceAccount.name | default (ternary (include "solfa.fullname" .) "default" .Values.serviceAccount.create) }}
{{- end }}

{{- define "solfa.trainerServiceAccount" -}}
{{- $account := .Values.training.serviceAccount }}
{{- $account.name | default (ternary (printf "%s-trainer" (include "solfa.fullname" .)) "default" $account.create) }}
{{- end }}

{{/* Empty where there is none. */}}
{{- define "solfa.databaseSecret" -}}
{{- if .Values.database.existingSecret }}{{ .Values.database.existingSecret }}{{ else if .Values.database.url }}{{ include "solfa.fullname" . }}-database{{ end }}
{{- end }}

{{/* Empty where there is none: pods then have an identity of their own. */}}
{{- define "solfa.bucketSecret" -}}
{{- if .Values.bucket.existingSecret }}{{ .Values.bucket.existingSecret }}{{ else if .Values.bucket.accessKeyId }}{{ include "solfa.fullname" . }}-bucket{{ end }}
{{- end }}

{{- define "solfa.claim" -}}
{{- .Values.database.volume.existingClaim | default (printf "%s-database" (include "solfa.fullname" .)) }}
{{- end }}

{{/* How both planes reach the bucket, as a JSON object of variables. */}}
{{- define "solfa.bucketEnvironment" -}}
{{- $environment := dict "AWS_REGION" .Values.bucket.region }}
{{- with .Values.bucket.endpoint }}
{{- $_ := set $environment "AWS_ENDPOINT_URL" . }}
{{- if hasPrefix "http://" . }}{{ $_ := set $environment "AWS_ALLOW_HTTP" "true" }}{{ end }}
{{- end }}
{{- toJson $environment }}
{{- end }}

{{- define "solfa.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "solfa.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{/* What cannot work is said here, in a sentence, before anything is installed. */}}
{{- define "solfa.check" -}}
{{- $replicas := ternary .Values.autoscaling.maxReplicas .Values.replicas .Values.autoscaling.enabled }}
{{- if not .Values.bucket.url }}
{{- fail "bucket.url is needed: s3://bucket/prefix, where training pods leave their results (the chart installs no object storage)." }}
{{- end }}
{{- if and (gt (int $replicas) 1) (not (include "solfa.databaseSecret" .)) }}
{{- fail "More than one replica needs PostgreSQL: set database.url or database.existingSecret, or let replicas be 1 and autoscaling off." }}
{{- end }}
{{- if and .Values.bucket.accessKeyId (not .Values.bucket.secretAccessKey) (not .Values.bucket.existingSecret) }}
{{- fail "bucket.accessKeyId goes with bucket.secretAccessKey; give both, or name a Secret with bucket.existingSecret." }}
{{- end }}
{{- if and .Values.ingress.enabled (not .Values.ingress.host) }}
{{- fail "ingress.host is needed with ingress.enabled." }}
{{- end }}
{{- end }}
