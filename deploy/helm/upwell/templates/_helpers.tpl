{{- define "upwell.name" -}}
{{- if contains "upwell" .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-upwell" .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "upwell.selector" -}}
app.kubernetes.io/name: upwell
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "upwell.labels" -}}
{{ include "upwell.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "upwell.account" -}}
{{- if .Values.serviceAccount.create -}}
{{- .Values.serviceAccount.name | default (include "upwell.name" .) -}}
{{- else -}}
{{- .Values.serviceAccount.name | default "default" -}}
{{- end -}}
{{- end -}}

{{- define "upwell.image" -}}
{{- printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) -}}
{{- end -}}

{{/* Metadata of a pod; a change of the settings starts it anew. */}}
{{- define "upwell.podMetadata" -}}
annotations:
  checksum/settings: {{ include "upwell.toml" .root | sha256sum }}
  {{- with .root.Values.podAnnotations }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
labels:
  {{- include "upwell.labels" .root | nindent 2 }}
  app.kubernetes.io/component: {{ .component }}
  {{- with .root.Values.podLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}

{{- define "upwell.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "upwell.security" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{/* The settings as the program reads them: a scalar of JSON is one of TOML. */}}
{{- define "upwell.toml" -}}
{{- range $section, $values := .Values.settings }}
[{{ $section }}]
{{- range $key, $value := $values }}
{{ $key }} = {{ toJson $value }}
{{- end }}
{{ end }}
{{- end -}}

{{/* Numba only uses a cache that it may write to: the image's is copied to where it may. */}}
{{- define "upwell.kernels" -}}
- name: kernels
  image: {{ include "upwell.image" . }}
  imagePullPolicy: {{ .Values.image.pullPolicy }}
  command: [cp, -r, /var/cache/upwell/., /kernels]
  securityContext: {{- include "upwell.security" . | nindent 4 }}
  resources:
    requests: {cpu: 50m, memory: 32Mi}
    limits: {memory: 128Mi}
  volumeMounts:
    - {name: kernels, mountPath: /kernels}
{{- end -}}

{{- define "upwell.env" -}}
- {name: UPWELL_CONFIG, value: /etc/upwell/upwell.toml}
- {name: UPWELL_OPERATE__PORT, value: {{ .root.Values.ports.worker | quote }}}
- {name: UPWELL_CANARY__PORT, value: {{ .root.Values.ports.canary | quote }}}
- name: UPWELL_REDIS__URL
  valueFrom:
    secretKeyRef: {name: {{ .root.Values.redis.secret }}, key: {{ .redisKey }}}
{{- if .root.Values.kafka.secret }}
- {name: UPWELL_KAFKA__SASL_PASSWORD_FILE, value: /etc/upwell/kafka/password}
{{- end }}
{{- end -}}

{{- define "upwell.mounts" -}}
- {name: settings, mountPath: /etc/upwell/upwell.toml, subPath: upwell.toml, readOnly: true}
- {name: kernels, mountPath: /var/cache/upwell}
- {name: tmp, mountPath: /tmp}
{{- if .Values.kafka.secret }}
- {name: kafka, mountPath: /etc/upwell/kafka, readOnly: true}
{{- end }}
{{- end -}}

{{- define "upwell.volumes" -}}
- {name: settings, configMap: {name: {{ include "upwell.name" . }}}}
- {name: kernels, emptyDir: {sizeLimit: 256Mi}}
- {name: tmp, emptyDir: {sizeLimit: 1Gi}}
{{- if .Values.kafka.secret }}
- name: kafka
  secret:
    secretName: {{ .Values.kafka.secret }}
    items: [{key: {{ .Values.kafka.passwordKey }}, path: password}]
{{- end }}
{{- end -}}
