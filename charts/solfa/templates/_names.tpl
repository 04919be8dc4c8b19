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

{{- define "solfa.registrySecret" -}}
{{ include "solfa.fullname" . }}-registry
{{- end }}

{{/* What an image-pull Secret holds. */}}
{{- define "solfa.registryLogin" -}}
{{- with .Values.images.credentials }}
{{- dict "auths" (dict (splitList "/" $.Values.images.registry | first) (dict "username" .username "password" .password)) | toJson }}
{{- end }}
{{- end }}

{{/* Names with commas between, empty where there are none. (dict "root" $ "made" NAME), the name of the one that the chart makes. */}}
{{- define "solfa.pullSecretNames" -}}
{{- $made := ternary (list .made) list (not (empty .root.Values.images.credentials.username)) }}
{{- concat .root.Values.images.pullSecrets $made | join "," }}
{{- end }}

{{/* As above. */}}
{{- define "solfa.pullSecrets" -}}
{{- with include "solfa.pullSecretNames" . -}}
imagePullSecrets:
{{- range splitList "," . }}
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

{{/* Empty where no token is asked for. */}}
{{- define "solfa.adminSecret" -}}
{{- if eq .Values.access.mode "required" }}{{ .Values.access.existingSecret | default (printf "%s-admin" (include "solfa.fullname" .)) }}{{ end }}
{{- end }}

{{- define "solfa.adminKey" -}}
{{- ternary .Values.access.key "token" (not (empty .Values.access.existingSecret)) }}
{{- end }}

{{/* (dict "root" $ "variable" NAME): the administrator's token, where one is asked for. */}}
{{- define "solfa.adminVariable" -}}
{{- with include "solfa.adminSecret" .root -}}
- name: {{ $.variable }}
  valueFrom:
    secretKeyRef:
      name: {{ . }}
      key: {{ include "solfa.adminKey" $.root }}
{{- end }}
{{- end }}

{{- define "solfa.claim" -}}
{{- .Values.database.volume.existingClaim | default (printf "%s-database" (include "solfa.fullname" .)) }}
{{- end }}

{{/* Empty where the bucket is an S3. */}}
{{- define "solfa.bucketClaim" -}}
{{- if not .Values.bucket.url }}{{ .Values.bucket.volume.existingClaim | default (printf "%s-bucket" (include "solfa.fullname" .)) }}{{ end }}
{{- end }}

{{/* (dict "root" $ "name" NAME "volume" .Values.x.volume) */}}
{{- define "solfa.newClaim" }}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata:
  name: {{ .name }}
  labels: {{- include "solfa.labels" .root | nindent 4 }}
  {{- if .volume.keep }}
  annotations:
    helm.sh/resource-policy: keep
  {{- end }}
spec:
  accessModes: [{{ .volume.accessMode | default "ReadWriteOnce" }}]
  {{- with .volume.storageClass }}
  storageClassName: {{ . }}
  {{- end }}
  resources:
    requests:
      storage: {{ .volume.size }}
{{- end }}

{{/* Not empty where a volume is one node's at a time: an old pod must be gone before a new one starts. */}}
{{- define "solfa.boundToNode" -}}
{{- if or (not (include "solfa.databaseSecret" .)) (and (not .Values.bucket.url) (eq .Values.bucket.volume.accessMode "ReadWriteOnce")) }}yes{{ end }}
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
{{- if and (gt (int $replicas) 1) (not .Values.bucket.url) (eq .Values.bucket.volume.accessMode "ReadWriteOnce") }}
{{- fail "More than one replica needs a bucket that every node reaches: set bucket.url, or bucket.volume.accessMode to ReadWriteMany." }}
{{- end }}
{{- if and (not .Values.bucket.url) (or .Values.bucket.endpoint .Values.bucket.accessKeyId .Values.bucket.existingSecret) }}
{{- fail "bucket.endpoint and the bucket's keys are of an S3: say which bucket with bucket.url (s3://bucket/prefix)." }}
{{- end }}
{{- if and .Values.images.credentials.username (not (and .Values.images.registry .Values.images.credentials.password)) }}
{{- fail "images.credentials.username goes with images.credentials.password and images.registry, whose image-pull Secret it makes." }}
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
{{- if and .Values.gateway.enabled (not .Values.gateway.parentRefs) }}
{{- fail "gateway.parentRefs is needed with gateway.enabled: the Gateway that the route attaches to." }}
{{- end }}
{{- end }}
