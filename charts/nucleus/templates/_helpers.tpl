{{- define "nucleus.name" -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "nucleus.selector" -}}
app.kubernetes.io/name: nucleus
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "nucleus.labels" -}}
{{ include "nucleus.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* An image by digest, else by tag. Takes a dict of image and the tag to fall back to. */}}
{{- define "nucleus.image" -}}
{{- if .image.digest -}}
{{ .image.repository }}@{{ .image.digest }}
{{- else -}}
{{ .image.repository }}:{{ .image.tag | default .tag }}
{{- end -}}
{{- end -}}

{{/* The classes and their handlers are called the same. */}}
{{- define "nucleus.handlers" -}}
{{- $handlers := list -}}
{{- if .Values.runtimeClasses.nucleus.enabled -}}{{- $handlers = append $handlers "nucleus" -}}{{- end -}}
{{- if .Values.runtimeClasses.production.enabled -}}{{- $handlers = append $handlers "nucleus-production" -}}{{- end -}}
{{- if .Values.runtimeClasses.sandboxed.enabled -}}{{- $handlers = append $handlers "nucleus-sandboxed" -}}{{- end -}}
{{- if .Values.runtimeClasses.gvisor.enabled -}}{{- $handlers = append $handlers "nucleus-gvisor" -}}{{- end -}}
{{- toJson $handlers -}}
{{- end -}}

{{/* Where the distribution keeps what the installer needs: host directories, mounted at the same path below /host. */}}
{{- define "nucleus.mounts" -}}
{{- $config := .Values.installer.config -}}
{{- $socket := .Values.installer.socket -}}
{{- $d := .Values.distribution -}}
{{- $mounts := list (dict "name" "directory" "path" .Values.installer.directory "type" "DirectoryOrCreate") -}}
{{- if or (eq $d "k3s") (eq $d "rke2") -}}
{{- $mounts = append $mounts (dict "name" "config" "path" (printf "/var/lib/rancher/%s/agent/etc/containerd" $d) "type" "Directory") -}}
{{- $mounts = append $mounts (dict "name" "run" "path" "/run/k3s/containerd" "type" "Directory" "readOnly" true) -}}
{{- else if eq $d "k0s" -}}
{{- $mounts = append $mounts (dict "name" "config" "path" "/etc/k0s" "type" "Directory") -}}
{{- $mounts = append $mounts (dict "name" "run" "path" "/run/k0s" "type" "Directory" "readOnly" true) -}}
{{- else if eq $d "microk8s" -}}
{{- $mounts = append $mounts (dict "name" "config" "path" "/var/snap/microk8s" "type" "Directory") -}}
{{- else -}}
{{- $mounts = append $mounts (dict "name" "config" "path" ($config | default "/etc/containerd/config.toml" | dir) "type" "Directory") -}}
{{- $mounts = append $mounts (dict "name" "run" "path" ($socket | default "/run/containerd/containerd.sock" | dir) "type" "Directory" "readOnly" true) -}}
{{- end -}}
{{- if .Values.installer.state -}}
{{- $mounts = append $mounts (dict "name" "state" "path" .Values.installer.state "type" "Directory" "readOnly" true) -}}
{{- end -}}
{{- if or (ne $d "k0s") .Values.installer.unit -}}
{{- $mounts = append $mounts (dict "name" "systemd" "path" "/run/systemd" "type" "Directory" "readOnly" true) -}}
{{- end -}}
{{- toJson $mounts -}}
{{- end -}}

{{/* The arguments that install and uninstall share, as a JSON list. */}}
{{- define "nucleus.arguments" -}}
{{- $i := .Values.installer -}}
{{- $arguments := list "--root=/host" (printf "--distribution=%s" .Values.distribution) (printf "--owner=%s/%s" .Release.Namespace .Release.Name) (printf "--directory=%s" $i.directory) (printf "--timeout=%d" (int $i.timeoutSeconds)) "--termination-log=/dev/termination-log" -}}
{{- range $name := list "config" "socket" "state" "unit" -}}
{{- with get $i $name -}}
{{- $arguments = append $arguments (printf "--%s=%s" $name .) -}}
{{- end -}}
{{- end -}}
{{- toJson $arguments -}}
{{- end -}}

{{/* What nobody in here needs. */}}
{{- define "nucleus.unprivileged" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "nucleus.token" -}}
- name: token
  projected:
    defaultMode: 292 # 0444
    sources:
      - serviceAccountToken:
          path: token
          expirationSeconds: 3600
      - configMap:
          name: kube-root-ca.crt
          items:
            - key: ca.crt
              path: ca.crt
      - downwardAPI:
          items:
            - path: namespace
              fieldRef:
                fieldPath: metadata.namespace
{{- end -}}

{{/* A container that runs kubectl; takes a dict of context, name and args. */}}
{{- define "nucleus.kubectl" -}}
- name: {{ .name }}
  image: {{ include "nucleus.image" (dict "image" .context.Values.kubectl.image "tag" "") }}
  imagePullPolicy: {{ .context.Values.kubectl.image.pullPolicy }}
  args:
    {{- range .args }}
    - {{ . | quote }}
    {{- end }}
  {{- with .env }}
  env:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  terminationMessagePolicy: FallbackToLogsOnError
  resources:
    {{- toYaml .context.Values.installer.resources | nindent 4 }}
  securityContext:
    {{- include "nucleus.unprivileged" . | nindent 4 }}
  volumeMounts:
    - name: token
      mountPath: /var/run/secrets/kubernetes.io/serviceaccount
      readOnly: true
{{- end -}}

{{/* What the schema cannot say in words that help. */}}
{{- define "nucleus.check" -}}
{{- $v := .Values -}}
{{- if not (include "nucleus.handlers" . | fromJsonArray) -}}
{{- fail "runtimeClasses: all classes are disabled, so there is nothing to install; enable at least one" -}}
{{- end -}}
{{- range $name, $image := dict "image" $v.image "kubectl.image" $v.kubectl.image -}}
{{- if eq $image.tag "latest" -}}
{{- fail (printf "%s.tag: `latest` is another image on each node; name a version or a digest" $name) -}}
{{- end -}}
{{- end -}}
{{- if or (has $v.installer.directory (list "/bin" "/boot" "/dev" "/etc" "/home" "/lib" "/lib64" "/opt" "/proc" "/root" "/run" "/sbin" "/sys" "/tmp" "/usr" "/var")) (hasPrefix "/usr/bin" $v.installer.directory) (hasPrefix "/usr/local/bin" $v.installer.directory) -}}
{{- fail (printf "installer.directory: %s is not for nucleus alone; name a directory of its own such as /opt/nucleus" $v.installer.directory) -}}
{{- end -}}
{{- if ne $v.distribution "containerd" -}}
{{- range $name := list "config" "socket" "state" -}}
{{- if get $v.installer $name -}}
{{- fail (printf "installer.%s: %s has it in one place only; it can be set for the distribution containerd" $name $v.distribution) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and (eq $v.distribution "k0s") $v.installer.unit -}}
{{- fail "installer.unit: k0s reads its directory by itself and is not restarted; leave it empty" -}}
{{- end -}}
{{- if hasKey $v.runtimeClasses.nodeSelector "nucleus.dev/ready" -}}
{{- fail "runtimeClasses.nodeSelector: nucleus.dev/ready is set by the chart" -}}
{{- end -}}
{{- range $label := list "app.kubernetes.io/name" "app.kubernetes.io/instance" "app.kubernetes.io/component" -}}
{{- if hasKey $v.installer.podLabels $label -}}
{{- fail (printf "installer.podLabels: %s is set by the chart" $label) -}}
{{- end -}}
{{- end -}}
{{- end -}}
